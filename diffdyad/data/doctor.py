"""`diffdyad data check`: is a dataset of exchanges what it says it is? Schema, ranges, sync, sides, leaks, doubles."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from diffdyad.data.dynamics import GLITCH_DEG_S, head_dynamics
from diffdyad.data.exchange import LONGEST_PREVIOUS_S, PEOPLE, SPLITS, Exchange, exchange_features
from diffdyad.data.importers import swapped
from diffdyad.data.importers.report import REPORT
from diffdyad.data.intake import CorruptShard, Shard
from diffdyad.data.scores import mouth_and_voice
from diffdyad.errors import PartialFailure, UserError
from diffdyad.media import SAMPLING_RATE

MOST_LAG_S = 0.12
"""Sound and lips further apart than this are seen."""

_ARKIT_RANGE = (-0.1, 1.5)
_MOST_EXPRESSION = 15.0  # standard deviations of FLAME's basis: no face is further from the mean
_CLIPPED, _CLIPPED_SHARE = 0.999, 0.001
_SILENT_DB, _SILENT = -65.0, "turns whose sound is silence"
_SLACK_S = 0.1
_LEAST_CLIPS = 3
_NAMED = 5


@dataclass
class Findings:
    """problems: what is wrong, by kind, and which exchanges, people or files it concerns; notes: what is only odd."""

    folder: Path
    exchanges: dict[str, int] = field(default_factory=dict)
    problems: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    notes: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def lines(self) -> list[str]:
        counts = ", ".join(f"{split} {count}" for split, count in self.exchanges.items())
        lines = [f"{self.folder}: {sum(self.exchanges.values())} exchanges ({counts})"]
        for word, found in (("problem", self.problems), ("note", self.notes)):
            for what, where in found.items():
                named = ", ".join(where[:_NAMED]) + (f" and {len(where) - _NAMED} more" if len(where) > _NAMED else "")
                lines.append(f"{word}: {what}: {named}")
        return lines if len(lines) > 1 else [*lines, "nothing wrong was found"]

    def raise_for_problems(self) -> None:
        """PartialFailure (exit code 3) if anything is wrong."""
        if self.problems:
            what = "; ".join(f"{what} ({len(where)})" for what, where in self.problems.items())
            raise PartialFailure(f"{self.folder} has problems: {what}")


@dataclass
class _Seen:
    """What is known of the exchanges so far, for what shows only among several of them."""

    ids: Counter = field(default_factory=Counter)
    links: list[tuple[str, str, str]] = field(default_factory=list)
    splits_of: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    sounds: dict[str, set[tuple[str, str]]] = field(default_factory=lambda: defaultdict(set))
    lags: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    sides: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    bases: Counter = field(default_factory=Counter)
    kinds: dict[str, str] = field(default_factory=dict)
    mute: list[tuple[str, str]] = field(default_factory=list)  # turns before without a sound, and their exchanges


def check_dataset(folder: str | os.PathLike, progress: bool = False) -> Findings:
    """Looks at every exchange of every split. Raises UserError where there is no dataset."""
    from tqdm.auto import tqdm

    folder = Path(folder)
    paths = [(split, path) for split in SPLITS for path in sorted(folder.glob(f"{split}-*-of-*.parquet"))]
    if not paths:
        raise UserError(f"expected parquet shards of exchanges in {folder}, found none")
    findings, seen = Findings(folder), _Seen()
    _check_names(findings, paths)
    for split, path in tqdm(paths, desc="checking", unit="shard", disable=not progress):
        try:
            shard = Shard(path)
        except UserError as error:
            reason = getattr(error, "reason", error)
            findings.problems["shards that cannot be read"].append(f"{path.name} ({reason})")
            continue
        _check_schema(path, findings)
        if not len(shard):
            findings.problems["shards without exchanges"].append(path.name)
        for index in range(len(shard)):
            try:
                exchange = shard[index]
            except CorruptShard as error:
                findings.problems["exchanges that contradict themselves or cannot be read"].append(
                    f"{path.name} row {index} ({error.reason})"
                )
                continue
            findings.exchanges[split] = findings.exchanges.get(split, 0) + 1
            if exchange.split != split:
                findings.problems["the column `split` is not the file's"].append(exchange.exchange_id)
            try:
                for check in _CHECKS:
                    check(exchange, findings)
                _remember(exchange, split, seen)
            except (TypeError, ValueError, KeyError, IndexError, ArithmeticError) as error:  # cells of a wrong kind
                findings.problems["exchanges that cannot be judged"].append(
                    f"{exchange.exchange_id} ({type(error).__name__}: {' '.join(str(error).split())[:100]})"
                )
    _check_together(findings, seen)
    _check_files(folder, findings)
    for found in (findings.problems, findings.notes):
        for what in [what for what, where in found.items() if not where]:
            del found[what]
    return findings


def _check_names(findings: Findings, paths: list[tuple[str, Path]]) -> None:
    for split in SPLITS:
        names = [path.name for s, path in paths if s == split]
        numbers = [re.fullmatch(rf"{split}-(\d+)-of-(\d+)\.parquet", name) for name in names]
        strange = [name for name, match in zip(names, numbers) if match is None]
        if strange:
            findings.problems["names that no shard has, but that are read as such"] += strange
        counts = {int(match[2]) for match in numbers if match}
        if len(counts) > 1 or (counts and len(names) - len(strange) != counts.pop()):
            findings.problems["shards are missing, or of two datasets"].append(split)


def _check_schema(path: Path, findings: Findings) -> None:
    """Columns that are not there, or hold something else than DATASET.md says; and no cell is without a value."""
    import pyarrow.parquet as parquet

    found, wanted = parquet.read_schema(path), exchange_features(1).arrow_schema
    for name in wanted.names:
        if name not in found.names:
            findings.notes["columns that are not there"].append(f"{path.name} {name}")
            continue
        there, meant = found.field(name).type, wanted.field(name).type
        if not (_is_matrix(there) if _is_matrix(meant) else there == meant):
            meant = "a list of lists of numbers" if _is_matrix(meant) else meant
            findings.problems["columns of another type"].append(f"{path.name} {name} ({there}, not {meant})")
    empty = Counter()
    metadata = parquet.read_metadata(path)
    for group in range(metadata.num_row_groups):
        for number in range(metadata.num_columns):
            column = metadata.row_group(group).column(number)
            # of lists, the statistics count those that are empty, too
            if column.path_in_schema in wanted.names and column.statistics is not None and column.statistics.null_count:
                empty[column.path_in_schema] += column.statistics.null_count
    findings.problems["cells without a value"] += [f"{path.name} {name} ({count})" for name, count in empty.items()]


def _is_matrix(kind) -> bool:
    """Numbers in lists of lists, or what `datasets` stores so. Widths differ between datasets, and are checked as the
    rows are read."""
    import pyarrow.types as types

    kind = getattr(kind, "storage_type", kind)
    return types.is_list(kind) and types.is_list(kind.value_type) and types.is_floating(kind.value_type.value_type)


def _check_files(folder: Path, findings: Findings) -> None:
    """Recordings of the same bytes, by what an import or a build says of itself."""
    recordings = defaultdict(set)
    path = folder / REPORT
    try:
        for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
            about = json.loads(line)
            for content in about.get("files", {}).values():
                recordings[str(content)].add(str(about["recording"]))
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        findings.problems["reports that cannot be read"].append(f"{REPORT} ({' '.join(str(error).split())[:100]})")
    findings.notes["recordings with a file in common"] += [
        " = ".join(sorted(names)) for content, names in sorted(recordings.items())
        if len(names) > 1 and not content.startswith("size:")
    ]  # fmt: skip


# ------------------------------------------------------------------------------------------------------- one exchange


def _ranges(exchange: Exchange, findings: Findings) -> None:
    for who in PEOPLE:
        person = exchange.person(who)
        valid = person.valid if len(person.valid) else slice(0)
        expression = person.motion["expression"]
        if len(expression):
            held = expression[valid]
            low, high = _ARKIT_RANGE if exchange.basis == "arkit" else (-_MOST_EXPRESSION, _MOST_EXPRESSION)
            if len(held) and (held.min() < low or held.max() > high):
                findings.problems[f"expressions of basis {exchange.basis} outside {low:g} to {high:g}"].append(
                    f"{exchange.exchange_id} {who}"
                )
            if len(held) > 10 and float(held.std(0).max()) < 1e-6:
                findings.problems["a face that never moves"].append(f"{exchange.exchange_id} {who}")
        lids = person.motion.get("eyelids", np.zeros(0))
        if len(lids) and len(held := lids[valid]) and (held.min() < _ARKIT_RANGE[0] or held.max() > _ARKIT_RANGE[1]):
            findings.problems[f"eyelids outside {_ARKIT_RANGE[0]:g} to {_ARKIT_RANGE[1]:g}"].append(
                f"{exchange.exchange_id} {who}"
            )
        for group, array in person.motion.items():
            if group not in ("expression", "eyelids") and len(array) and np.abs(array[valid]).max(initial=0) > np.pi:
                findings.problems["rotations beyond half a turn (degrees instead of radians?)"].append(
                    f"{exchange.exchange_id} {who}_{group}"
                )
        speed = max(head_dynamics(person.motion, person.valid, exchange.fps).peak_speed_deg_s, default=0.0)
        if speed > GLITCH_DEG_S:
            found = findings.problems if exchange.keep else findings.notes  # what the filters reject is known already
            found[f"heads that turn faster than {GLITCH_DEG_S:g} degrees/s"].append(
                f"{exchange.exchange_id} {who}"
            )


def _sound(exchange: Exchange, findings: Findings) -> None:
    for who in PEOPLE:
        waveform = _own_sound(exchange, who)
        if who == "responder" and exchange.response_kind != "silent" and _is_silent(waveform):
            findings.problems[_SILENT].append(f"{exchange.exchange_id} {who}")
        if len(waveform) and (np.abs(waveform) > _CLIPPED).mean() > _CLIPPED_SHARE:
            findings.notes["clipped sound"].append(f"{exchange.exchange_id} {who}")


def _own_sound(exchange: Exchange, who: str) -> np.ndarray:
    onset = round(-exchange.start_s * SAMPLING_RATE)
    return exchange.person(who).waveform[slice(0, onset) if who == "previous" else slice(onset, None)]


def _is_silent(waveform: np.ndarray) -> bool:
    """Whether there is a sound whose loudest tenth of a second is none."""
    if not len(waveform):
        return False
    block = SAMPLING_RATE // 10
    power = np.square(np.pad(waveform, (0, -len(waveform) % block)), dtype=np.float64).reshape(-1, block).mean(1)
    return 10 * np.log10(power.max() + 1e-12) < _SILENT_DB


def _words(exchange: Exchange, findings: Findings) -> None:
    for who in PEOPLE:
        words = exchange.person(who).words
        if any(word.end_s < word.start_s for word in words):
            findings.problems["words that end before they begin"].append(f"{exchange.exchange_id} {who}")
        outside = [w for w in words if w.end_s < exchange.start_s - 0.5 or w.start_s > exchange.end_s + 0.5]
        if outside:
            # of a turn that is longer than what is kept of it, a corpus may have all words
            cut = who == "previous" and exchange.start_s < _SLACK_S - LONGEST_PREVIOUS_S
            cut = cut and all(word.start_s < exchange.start_s for word in outside)
            found = findings.notes if cut else findings.problems
            found["words outside their exchange"].append(f"{exchange.exchange_id} {who}")


_SCORES = {"active_speaker_score": (0, 1), "overlap_ratio": (0, 1), "head_percentile": (0, 100),
           "valence": (-1, 1), "arousal": (-1, 1), "reprojection_px": (0, np.inf)}  # fmt: skip


def _scores(exchange: Exchange, findings: Findings) -> None:
    for name, (low, high) in _SCORES.items():
        if getattr(exchange, name) < low - 1e-6 or getattr(exchange, name) > high + 1e-6:  # NaN = not known
            findings.problems[f"{name} outside {low:g} to {high:g}"].append(exchange.exchange_id)
    if not exchange.start_s - _SLACK_S <= exchange.previous_end_s <= exchange.end_s + _SLACK_S:
        findings.problems["previous turns that end outside their exchange"].append(exchange.exchange_id)


_CHECKS: tuple[Callable[[Exchange, Findings], None], ...] = (_ranges, _sound, _words, _scores)


# ----------------------------------------------------------------------------------------------------- among several


def _remember(exchange: Exchange, split: str, seen: _Seen) -> None:
    seen.ids[exchange.exchange_id] += 1
    seen.bases[(exchange.basis, exchange.layout.num_expression, exchange.fps)] += 1
    seen.kinds[exchange.exchange_id] = exchange.response_kind
    if _is_silent(_own_sound(exchange, "previous")):
        seen.mute.append((exchange.exchange_id, exchange.previous_exchange_id))
    seen.links.append((exchange.exchange_id, exchange.previous_exchange_id, exchange.next_exchange_id))
    for what, name in (("session", exchange.session_id), ("person", exchange.responder_name),
                       ("person", exchange.previous_speaker)):  # fmt: skip
        if name:
            seen.splits_of[f"{what} {name}"].add(split)
    onset = round(-exchange.start_s * SAMPLING_RATE)
    response = exchange.responder.waveform[onset:]
    if len(response) and np.abs(response).max() > 0.001:
        samples = hashlib.sha256((response * 32767).astype("<i2").tobytes()).hexdigest()
        seen.sounds[samples].add((split, exchange.exchange_id))
    jaws = {who: exchange.person(who).motion.get("jaw_pose", ()) for who in PEOPLE}
    for who in PEOPLE:
        sync = mouth_and_voice(exchange, who)
        if sync is not None and sync.lag_s is not None:
            seen.lags[exchange.session_id].append(sync.lag_s)
    if all(len(jaws[who]) and len(exchange.person(who).waveform) for who in PEOPLE):
        openings = tuple(jaws[who][:, 0] for who in PEOPLE)
        sides = swapped.compare(openings, tuple(exchange.person(who).waveform for who in PEOPLE), exchange.fps)
        seen.sides[exchange.session_id].append(sides.verdict)


def _check_together(findings: Findings, seen: _Seen) -> None:
    problems, notes = findings.problems, findings.notes
    problems["exchange_id occurs more than once"] += [name for name, count in seen.ids.items() if count > 1]
    problems["previous and next exchange do not agree"] += _broken_links(seen.links)
    problems["in more than one split"] += sorted(name for name, splits in seen.splits_of.items() if len(splits) > 1)
    # a silent answer may be the next turn before
    problems[_SILENT] += [f"{name} previous" for name, before in seen.mute if seen.kinds.get(before) != "silent"]
    for where in seen.sounds.values():
        if len(where) > 1:
            what = "splits" if len({split for split, _ in where}) > 1 else "exchanges"
            problems[f"the same response in several {what}"].append(" = ".join(sorted(name for _, name in where)))
    if len(seen.bases) > 1:
        problems["motions of several bases or rates"] += [f"{b} with {n} at {fps:g} fps" for b, n, fps in seen.bases]
    problems["the sides' voices are exchanged in session"] += sorted(
        name for name, verdicts in seen.sides.items()
        if verdicts.count("swapped") > 2 * verdicts.count("as expected") and verdicts.count("swapped") >= 2
    )  # fmt: skip
    for name, lags in sorted(seen.lags.items()):
        if len(lags) >= _LEAST_CLIPS and abs(np.median(lags)) > MOST_LAG_S:
            problems["sound and mouth are apart in session"].append(f"{name} by {1000 * np.median(lags):+.0f} ms")
    if not seen.lags and findings.exchanges:
        notes["sync and sides could not be judged"].append("no exchange has both a jaw and a voice that go together")


def _broken_links(links: list[tuple[str, str, str]]) -> list[str]:
    after = {name: following for name, _, following in links}
    before = {name: previous for name, previous, _ in links}
    return [
        name for name, previous, following in links
        if (previous and previous in after and after[previous] != name)
        or (following and before.get(following, name) != name)
    ]  # fmt: skip
