"""ViCo / RLHG (Zhou et al., ECCV 2022): somebody speaks, somebody listens; sound, and videos that are to be tracked."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from diffdyad.data.importers import checks
from diffdyad.data.importers.recording import Importer, Item, Recording, Side
from diffdyad.errors import UserError
from diffdyad.media import SAMPLING_RATE

FPS = 30.0
_SPLITS = {"train": "train", "val": "validation", "valid": "validation", "test": "test", "ood": "test"}


class ViCo(Importer):
    """`uuid.speaker.mp4`, `uuid.listener.mp4`, `uuid.wav` anywhere in the folder, and a csv with a column `uuid`.

    Videos have 30 fps. Its BFM coefficients are not FLAME: the exchanges have the speaker's sound, and motion where a
    tracker has seen the videos. People are known where the csv has speaker_id and listener_id.
    """

    name, title = "vico", "ViCo"
    license = "see the dataset's own page"
    has_videos = True
    expects = "a .csv with the column uuid, and uuid.wav, uuid.speaker.mp4, uuid.listener.mp4"

    def notes(self) -> list[str]:
        if self.options.tracker:
            return []
        return ["BFM coefficients are not taken over: the videos in to_track.jsonl are to be tracked (--tracker)"]

    def videos(self, item: Item) -> tuple[str, ...]:
        return item.files[1:]

    def scan(self) -> Iterator[Item]:
        files = {path.name: path for path in sorted(self.source.rglob("*")) if path.suffix in (".mp4", ".wav")}
        seen = set()
        for path in sorted(self.source.rglob("*.csv")):
            for row in _rows(path):
                name = row["uuid"]
                if name in seen:
                    continue
                seen.add(name)
                wanted = (f"{name}.wav", f"{name}.speaker.mp4", f"{name}.listener.mp4")
                found = tuple(str(files[w].relative_to(self.source)) if w in files else w for w in wanted)
                people = (row.get("speaker_id") or f"{name}-speaker", row.get("listener_id") or f"{name}-listener")
                split = _SPLITS.get(row.get("data_split") or row.get("split") or path.stem.lower())
                yield Item(name, found, people, split)

    def load(self, item: Item) -> Recording:
        waveform = checks.read_wav(self.path(item.files[0]), None)
        for video in item.files[1:]:
            checks.check_video(self.path(video), FPS, len(waveform) / SAMPLING_RATE)
        sides = [Side(item.people[0], waveform, video=item.files[1]), Side(item.people[1], video=item.files[2])]
        return Recording(sides, len(waveform) / SAMPLING_RATE, listener=1)


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            if "uuid" not in (reader.fieldnames or []):
                return []
            return [{key: value or "" for key, value in row.items() if key} for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"expected a CSV file, cannot read {path}: {error}") from None
