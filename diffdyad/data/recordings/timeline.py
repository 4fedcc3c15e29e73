"""`diffdyad data turns`: who speaks when in one recording, as RTTM and as a picture."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from diffdyad.data.recordings.frames import total
from diffdyad.data.recordings.hearing import Heard, hear
from diffdyad.data.recordings.rttm import rttm_lines, write_rttm
from diffdyad.data.recordings.steps import Steps
from diffdyad.data.recordings.turns import find_answers, find_turns
from diffdyad.errors import UserError
from diffdyad.staging import whole

_MOST_SPEAKERS = 10
_ROW_S = 60.0
_MOST_ROWS = 60
_COLORS = ("#2f6db3", "#c8553d", "#4f9d69", "#8e6bbf", "#b8860b", "#5b8a8a", "#a05195", "#777777", "#d45087", "#2f4b7c")


def write_turns(
    files: Sequence[str], rttm: str | None = None, layout: str | None = None, num_speakers: int = 2,
    activity: str = "silero", picture: str | None = None,
) -> str:
    """Writes who speaks when, before pauses are merged into turns (with one microphone, a speaker's own short pauses
    are speech); returns a line about it (without `rttm`: the RTTM itself).

    Raises UserError for files that cannot be read and for settings that they do not allow.
    """
    if not 1 <= num_speakers <= _MOST_SPEAKERS:
        raise UserError(f"expected --speakers from 1 to {_MOST_SPEAKERS}, found {num_speakers}")
    if layout not in (None, "channels", "mixed"):
        raise UserError(f"expected --layout channels or mixed, found {layout!r}")
    if len(files) > 2:
        raise UserError(f"expected one file, or two of two people, found {len(files)}")
    if num_speakers != 2 and layout is None and len(files) == 1:
        layout = "mixed"
    if num_speakers != 2 and layout != "mixed":
        raise UserError(f"a channel per person is two people: expected --speakers 2, found {num_speakers}")
    paths = [Path(name) for name in files]
    for target in (rttm, picture):
        if target is not None and Path(target).is_dir():
            raise UserError(f"expected the name of a file to write, found a folder: {target}")
        if target is not None and not Path(target).absolute().parent.is_dir():
            raise UserError(f"expected a folder for {target}, found none at {Path(target).absolute().parent}")
    with tempfile.TemporaryDirectory(prefix="diffdyad-") as folder:
        heard = hear(paths, Steps(Path(folder)), layout, activity_backend=activity, num_speakers=num_speakers)
        if picture is not None:
            draw(heard, picture)
    speakers = {_name(number): spans for number, spans in enumerate(heard.spans)}
    if rttm is None:
        return "\n".join(rttm_lines(paths[0].stem, speakers))
    write_rttm(rttm, paths[0].stem, speakers)
    seconds = ", ".join(f"{name} {total(spans):.1f} s in {len(spans)}" for name, spans in speakers.items())
    return f"{rttm}: {seconds} ({heard.seconds:.1f} s, {heard.layout})"


def _name(number: int) -> str:
    return chr(ord("A") + number)


def draw(heard: Heard, path: str | os.PathLike) -> None:
    """The timeline, a minute per row: levels, who speaks when, turns (framed) and the answers among them (arrows).

    An hour at most is shown. The file appears whole or not at all.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    seconds = min(heard.seconds, _ROW_S * _MOST_ROWS)
    rows = max(1, int(np.ceil(seconds / _ROW_S - 1e-3)))
    width = min(_ROW_S, max(seconds, 5.0))
    people = len(heard.spans)
    figure = Figure(figsize=(14, 0.8 + rows * (0.5 + 0.42 * people)), layout="constrained", dpi=90)
    axes = figure.subplots(rows, 1, squeeze=False)[:, 0]
    turns = find_turns(heard.spans, heard.sounds)
    answers = find_answers(turns, heard.seconds)
    scale = np.clip((heard.levels + 70) / 60, 0, 1)
    for row, axis in enumerate(axes):
        begin, end = row * _ROW_S, row * _ROW_S + width
        frames = slice(round(begin * 100), round(end * 100))
        for side, spans in enumerate(heard.spans):
            level = scale[min(side, len(scale) - 1)][frames][::4]
            times = begin + np.arange(len(level)) * 0.04
            base, color = people - 1 - side, _COLORS[side % len(_COLORS)]
            axis.fill_between(times, base - 0.4 * level, base + 0.4 * level, color="#d8d8d8", linewidth=0)
            for start, stop in spans:
                if stop > begin and start < end:
                    axis.add_patch(Rectangle((start, base - 0.22), stop - start, 0.44, color=color, alpha=0.8, lw=0))
            for start, stop in heard.sounds[side] if side < len(heard.sounds) else ():
                if stop > begin and start < end:
                    axis.add_patch(Rectangle((start, base - 0.1), stop - start, 0.2, color=color, alpha=0.4, lw=0))
        for turn in turns:
            if turn.end_s > begin and turn.start_s < end and turn.kind != "backchannel":
                axis.add_patch(Rectangle((turn.start_s, people - 1.42 - turn.side), turn.duration_s, 0.84, fill=False,
                                         edgecolor="black", lw=1.0))  # fmt: skip
        for answer in answers:
            if begin <= answer.turn.start_s < end:
                ends = [(turn, people - 1 - turn.side) for turn in (answer.previous, answer.turn)]
                axis.annotate("", (answer.turn.start_s, ends[1][1]), (answer.previous.end_s, ends[0][1]),
                              arrowprops={"arrowstyle": "->", "lw": 1.6})  # fmt: skip
        axis.set(xlim=(begin, end), ylim=(-0.6, people - 0.4), yticks=range(people))
        axis.set_yticklabels([_name(people - 1 - n) for n in range(people)])
        axis.spines[["top", "right"]].set_visible(False)
    axes[-1].set_xlabel("seconds")
    kinds = f"{len(heard.spans)} people, {len(turns)} turns and backchannels, {len(answers)} exchanges"
    title = f"speech (bars), other sounds (thin), turns (frames), answers (arrows): {kinds}"
    axes[0].set_title(title, fontsize=10, loc="left")
    with whole(path, shared=True) as partial:
        figure.savefig(partial, format="png")
