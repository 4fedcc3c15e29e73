"""Figures of generated motion beside those measured on real captures: the corpus card's table of ranges."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffdyad.motion import ARKIT_EXPRESSIONS, JAW_OPEN_RADIANS, MotionLayout

LAYOUT = MotionLayout.arkit()

REAL: dict[str, str] = {
    "blinks per minute": "15 speaking; 2 to 41, median 23 silent",
    "blink above 0.2, s": "0.15; 0.12 to 0.17",
    "jawOpen mean": "0.07",
    "jawOpen sd": "0.09 (0.08 to 0.15 in two dyadic clips)",
    "jaw power < 1 Hz, %": "37",
    "jaw power 1-3 Hz, %": "40",
    "jaw power 3-6 Hz, %": "20",
    "jaw power 6-12 Hz, %": "3",
    "jaw against log energy, r": "0.44; 0.59",
    "head yaw sd, rad": "0.024 (0.025 to 0.12)",
    "head pitch sd, rad": "0.021 (0.025 to 0.12)",
    "head roll sd, rad": "0.015 (0.025 to 0.12)",
    "head yaw speed, rad/s": "0.13 (0.06 to 0.28)",
    "head pitch speed, rad/s": "0.08 (0.06 to 0.28)",
    "head roll speed, rad/s": "0.06 (0.06 to 0.28)",
    "eye yaw sd, rad": "0.078",
    "eye pitch sd, rad": "0.040",
    "browInnerUp sd": "0.29 (0.01 to 0.20 silent)",
    "eyeWide sd": "0.25",
    "smile sd": "0.12",
    "funnel sd": "0.11",
    "pucker sd": "0.10",
}
"""One speaking capture of 20 s, ten silent takes, two dyadic talk clips tracked in FLAME (in brackets)."""


@dataclass(frozen=True)
class Clip:
    """Motion (T, 56) of one person speaking, and the log energy of the own voice per frame, dB: (T,)."""

    motion: np.ndarray
    energy_db: np.ndarray | None = None


def _runs(mask: np.ndarray) -> np.ndarray:
    """Lengths of the runs of True that lie within a mask: (N,)"""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(int), [0]])))
    return (edges[1::2] - edges[::2]) if len(edges) else np.zeros(0, int)


def crossing_seconds(track: np.ndarray, level: float, fps: float) -> np.ndarray:
    """Lengths in seconds of the stretches of a track (T,) above a level, edges interpolated: (N,)"""
    above = track > level
    rising = np.flatnonzero(~above[:-1] & above[1:])
    falling = np.flatnonzero(above[:-1] & ~above[1:])
    if not len(rising) or not len(falling):
        return np.zeros(0)
    falling = falling[falling > rising[0]]
    rising = rising[: len(falling)]
    into = (level - track[rising]) / (track[rising + 1] - track[rising])
    out = (track[falling] - level) / (track[falling] - track[falling + 1])
    return (falling + out - rising - into) / fps


def figures(clips: list[Clip], fps: float = 25.0) -> dict[str, float]:
    """The figures of REAL: mean over clips, weighted by their length; blinks and power over all together."""
    seconds = np.array([len(clip.motion) for clip in clips]) / fps
    rows: list[dict[str, float]] = []
    power = np.zeros(4)
    lengths: list[float] = []
    where = LAYOUT.slices
    for clip in clips:
        motion = clip.motion.astype(np.float64)
        jaw = motion[:, where["jaw_pose"].start] / JAW_OPEN_RADIANS
        head = motion[:, where["global_orient"]] + motion[:, where["neck_pose"]]
        eye = motion[:, where["leye_pose"]]
        lid = motion[:, ARKIT_EXPRESSIONS.index("eyeBlinkLeft")]
        lengths += [s for s in crossing_seconds(lid, np.median(lid) + 0.2, fps) if s < 0.5]
        row = {"jawOpen mean": jaw.mean(), "jawOpen sd": jaw.std()}
        speed = np.abs(np.diff(head, axis=0)).mean(0) * fps
        for axis, name in ((1, "yaw"), (0, "pitch"), (2, "roll")):
            row[f"head {name} sd, rad"] = head[:, axis].std()
            row[f"head {name} speed, rad/s"] = speed[axis]
        row["eye yaw sd, rad"], row["eye pitch sd, rad"] = eye[:, 1].std(), eye[:, 0].std()
        for label, name in (
            ("browInnerUp", "browInnerUp"), ("eyeWide", "eyeWideLeft"), ("smile", "mouthSmileLeft"),
            ("funnel", "mouthFunnel"), ("pucker", "mouthPucker"),
        ):  # fmt: skip
            row[f"{label} sd"] = motion[:, ARKIT_EXPRESSIONS.index(name)].std()
        row["jaw against log energy, r"] = np.nan  # not defined where either is constant
        if clip.energy_db is not None and jaw.std() > 0 and np.std(clip.energy_db) > 0:
            row["jaw against log energy, r"] = np.corrcoef(jaw, clip.energy_db)[0, 1]
        rows.append(row)
        spectrum = np.abs(np.fft.rfft((jaw - jaw.mean()) * np.hanning(len(jaw)))) ** 2
        frequency = np.fft.rfftfreq(len(jaw), 1.0 / fps)
        for band, (low, high) in enumerate(((0.0, 1.0), (1.0, 3.0), (3.0, 6.0), (6.0, 12.0))):
            power[band] += spectrum[(frequency >= low) & (frequency < high)].sum()
    result = {"blinks per minute": 60.0 * len(lengths) / seconds.sum()}
    result["blink above 0.2, s"] = float(np.mean(lengths)) if lengths else float("nan")
    power *= 100.0 / max(power.sum(), 1e-12)
    for name, share in zip(("< 1", "1-3", "3-6", "6-12"), power):
        result[f"jaw power {name} Hz, %"] = share
    for name in rows[0]:
        values = np.array([row[name] for row in rows])
        known = np.isfinite(values)
        if known.any():
            result[name] = float(np.average(values[known], weights=seconds[known]))
    return {name: float(result[name]) for name in REAL if name in result}


def table(columns: dict[str, dict[str, float]]) -> str:
    """Markdown: the real figures beside those of each named column."""
    lines = ["| figure | real | " + " | ".join(columns) + " |", "|---|---|" + "---|" * len(columns)]
    for name, real in REAL.items():
        values = [f"{figures[name]:.3g}" if name in figures else "-" for figures in columns.values()]
        lines.append(f"| {name} | {real} | " + " | ".join(values) + " |")
    return "\n".join(lines)
