"""BEAT2 (Liu et al., CVPR 2024): monologues with whole-body SMPL-X motion, whose face is FLAME 2020."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from diffdyad import rotation
from diffdyad.data.importers import checks
from diffdyad.data.importers.flame import flame_motion
from diffdyad.data.importers.recording import Importer, Item, Recording, Side
from diffdyad.errors import UserError
from diffdyad.media import SAMPLING_RATE

FPS, WAVE_RATE = 30.0, 16000
_WAVES = "wave16k"
_JOINT = {"neck": 12, "head": 15, "jaw_pose": 22, "leye_pose": 23, "reye_pose": 24}  # of SMPL-X's 55


class BEAT2(Importer):
    """npz of SMPL-X with expressions (T, 100) and jaw_pose (T, 3), or poses (T, 165); the wav of the same name.

    30 fps (`mocap_frame_rate`); sound in wave16k/ at 16 kHz, elsewhere at its own rate. From `poses`, eyes are taken
    too, and the head: neck and head joint together, against the upper body, which in a studio turns and walks; they
    count as one rotation (`neck_folded`). Monologues: nobody spoke before.
    """

    name, title, tracker = "beat2", "BEAT2", "MoSh++ and FLAME fits (BEAT2)"
    num_expression = 100
    license = "see the dataset's own page"
    items_per_shard = 32
    expects = "NAME.npz of SMPL-X with NAME.wav beside it or in wave16k/"

    def scan(self) -> Iterator[Item]:
        sounds = {path.stem: path for path in sorted(self.source.rglob("*.wav"))}
        for path in sorted(self.source.rglob("*.npz")):
            wav = sounds.get(path.stem, path.with_suffix(".wav"))
            # 1_wayne_0_9_16: the first two parts are the person
            person = "_".join(path.stem.split("_")[:2])
            name = str(path.relative_to(self.source).with_suffix(""))
            yield Item(name, (str(path.relative_to(self.source)), str(wav.relative_to(self.source))), (person,))

    def load(self, item: Item) -> Recording:
        where = self.path(item.files[0])
        arrays = checks.read_npz(where)
        expression = checks.array_of(arrays, "expressions", (None, 100), where)
        frames = len(expression)
        if "mocap_frame_rate" not in arrays:
            raise UserError(f"expected the key 'mocap_frame_rate' ({FPS:g} fps) in {where}, found "
                            f"{', '.join(sorted(arrays)[:20])}")  # fmt: skip
        rate = np.asarray(arrays["mocap_frame_rate"])
        if rate.dtype.kind not in "fiu" or rate.size != 1 or rate.item() != FPS:
            raise UserError(f"expected {FPS:g} fps ('mocap_frame_rate') in {where}, found {str(rate.tolist())[:60]}")
        groups = {}
        if "poses" in arrays:
            poses = torch.from_numpy(checks.array_of(arrays, "poses", (frames, 165), where)).view(frames, 55, 3)
            groups = {group: poses[:, _JOINT[group]].numpy() for group in ("jaw_pose", "leye_pose", "reye_pose")}
            head = rotation.compose(poses[:, _JOINT["neck"]], poses[:, _JOINT["head"]])
            groups["global_orient"] = head.numpy()
            for group in ("leye_pose", "reye_pose"):
                if not groups[group].any():
                    del groups[group]  # a pose that is exactly zero throughout was not captured
        if "jaw_pose" in arrays:
            groups["jaw_pose"] = checks.array_of(arrays, "jaw_pose", (frames, 3), where)
        if "jaw_pose" not in groups:
            raise UserError(f"expected the key 'jaw_pose' or 'poses' in {where}, found "
                            f"{', '.join(sorted(arrays)[:20])}")  # fmt: skip
        sound = self.path(item.files[1])
        waveform = checks.read_wav(sound, WAVE_RATE if sound.parent.name == _WAVES else None)
        checks.check_rate(frames, FPS, len(waveform) / SAMPLING_RATE, where)
        motion = flame_motion(self.expression_basis, FPS, expression, **groups)
        # SMPL-X's identity is of the whole body: no FLAME betas
        side = Side(item.people[0], waveform, motion)
        return Recording([side], min(frames / FPS, len(waveform) / SAMPLING_RATE))
