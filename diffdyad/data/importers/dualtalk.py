"""DualTalk (Peng et al., CVPR 2025): dialogue clips from videos, both faces tracked with DECA, a voice each."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator

from diffdyad.data.importers import checks
from diffdyad.data.importers.flame import flame_motion
from diffdyad.data.importers.recording import Importer, Item, Recording, Side
from diffdyad.media import SAMPLING_RATE

FPS = 25.0
_NAME = re.compile(r"(?P<video>.+)_sub_video_(?P<clip>\d+(?:_\d+)?)_speaker(?P<side>[12])\.(?:npz|wav)")
_SPLITS = {"train": "train", "test": "test", "ood": "test"}


class DualTalk(Importer):
    """`{train,test,ood}/<video>_sub_video_<n>[_<k>]_speaker{1,2}.{npz,wav}`.

    npz: shape (T, 100) per frame (averaged), exp (T, 50), pose (T, 6) = global rotation and jaw, FLAME 2020; wav
    16 kHz. Neither eyes nor a neck of its own. `ood` becomes test as source dualtalk-ood.
    """

    name, title, license, tracker = "dualtalk", "DualTalk", "Apache-2.0", "DECA"
    num_expression = 50
    expects = "train/, test/ or ood/ with ..._sub_video_..._speaker1.npz and the like"

    def scan(self) -> Iterator[Item]:
        folders = [name for name in _SPLITS if (self.source / name).is_dir()] or ["."]
        for folder in folders:
            sides: dict[tuple[str, str], set[str]] = defaultdict(set)
            for path in (self.source / folder).iterdir():
                if match := _NAME.fullmatch(path.name):
                    sides[match["video"], match["clip"]].add(path.name)
            for video, clip in sorted(sides):
                stem = f"{folder}/{video}_sub_video_{clip}_speaker".removeprefix("./")
                yield Item(
                    item_id=f"{folder}/{video}_sub_video_{clip}".removeprefix("./"),
                    # all four, there or not: what is missing is said when it is read
                    files=tuple(f"{stem}{side}.{kind}" for side in (1, 2) for kind in ("npz", "wav")),
                    people=(f"{video}-1", f"{video}-2"),
                    split=_SPLITS.get(folder),
                    group=video,
                )  # fmt: skip

    def load(self, item: Item) -> Recording:
        sides, lengths = [], []
        for person, npz, wav in zip(item.people, item.files[::2], item.files[1::2]):
            arrays, where = checks.read_npz(self.path(npz)), self.path(npz)
            expression = checks.array_of(arrays, "exp", (None, 50), where)
            pose = checks.array_of(arrays, "pose", (len(expression), 6), where)
            shape = checks.array_of(arrays, "shape", (None, 100), where)
            waveform = checks.read_wav(self.path(wav), SAMPLING_RATE)
            checks.check_rate(len(expression), FPS, len(waveform) / SAMPLING_RATE, where)
            motion = flame_motion(
                self.expression_basis, FPS, expression, global_orient=pose[:, :3], jaw_pose=pose[:, 3:]
            )
            sides.append(Side(person, waveform, motion, shape.mean(0)))
            lengths.append(len(expression))
        num_frames = checks.same_length(*lengths, FPS, self.path(item.files[0]))
        source = "dualtalk-ood" if item.item_id.startswith("ood/") else self.name
        return Recording(sides, num_frames / FPS, source=source)
