"""Frames to files: a video with sound, panels side by side, a contact sheet, the curves of a sweep.

Frames are `(H, W, 3)` uint8 and come from iterators, so that an hour of video needs the memory of a few
frames. Files appear whole or not at all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

from diffdyad.staging import whole

Frame = NDArray[np.uint8]  # (H, W, 3)

INK, PAPER, ACCENT = (238, 240, 243), (16, 18, 22), (255, 176, 92)
GAP = 4  # pixels between panels
_BT709 = 1  # ITU-T H.273: primaries, transfer and matrix
_LIMITED = 1  # FFmpeg's AVCOL_RANGE_MPEG


# ------------------------------------------------------------------------------------------- video


def write_video(
    path: str | Path,
    frames: Iterable[Frame],
    fps: float,
    audio: ArrayLike | None = None,  # (S,) -1..1
    sampling_rate: int | None = None,
    crf: int = 17,
) -> int:
    """Writes an MP4 (H.264 yuv420p, AAC) and returns the number of frames.

    The sound is cut or padded with silence to the frames' length, num_frames / fps seconds. Odd sizes gain a
    row or a column, as H.264 wants them even. Lower `crf` is better and bigger.

    Raises ValueError for no frames, frames of different sizes or wrong rates, and OSError as the disk does.
    """
    if not (math.isfinite(fps) and fps > 0):
        raise ValueError(f"expected fps > 0, got {fps}")
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise ValueError(f"expected at least one frame for {path}, got none")
    rate = Fraction(fps).limit_denominator(10_000)
    with whole(path, shared=True) as temporary:
        container = av.open(str(temporary), "w", format="mp4", options={"movflags": "+faststart"})
        try:
            picture = _Picture(container, first.shape, rate, crf)
            sound = None if audio is None else _Sound(container, audio, sampling_rate)
            count = 0
            for count, frame in enumerate(chain((first,), frames), start=1):
                picture.write(frame)
                if sound is not None:
                    sound.write_until(count / rate)
            picture.finish()
            if sound is not None:
                sound.finish()
        except BaseException:
            _close_quietly(container)
            raise
        container.close()
    return count


def _close_quietly(container) -> None:
    # The reason for closing is what the user should read, not that the trailer could not be written either.
    try:
        container.close()
    except Exception:
        return


class _Picture:
    def __init__(self, container, shape: tuple[int, ...], rate: Fraction, crf: int):
        self.container, self.shape = container, shape
        height, width = shape[0] + shape[0] % 2, shape[1] + shape[1] % 2
        self.pad = ((0, shape[0] % 2), (0, shape[1] % 2), (0, 0))
        options = {"crf": str(crf), "preset": "veryfast", "tune": "animation"}
        self.stream = container.add_stream("libx264", rate=rate, options=options)
        self.stream.width, self.stream.height, self.stream.pix_fmt = width, height, "yuv420p"
        context = self.stream.codec_context
        context.time_base = 1 / rate
        context.color_primaries = context.color_trc = context.colorspace = _BT709
        context.color_range = _LIMITED
        self.written = 0

    def write(self, frame: Frame) -> None:
        if frame.shape != self.shape or frame.dtype != np.uint8:
            raise ValueError(f"expected frames {self.shape} uint8, got {frame.shape} {frame.dtype}")
        if self.pad != ((0, 0),) * 3:
            frame = np.pad(frame, self.pad, mode="edge")
        rgb = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        yuv = rgb.reformat(format="yuv420p", src_colorspace="ITU709", dst_colorspace="ITU709", dst_color_range="MPEG")
        yuv.pts, yuv.time_base = self.written, self.stream.codec_context.time_base
        self.written += 1
        self.container.mux(self.stream.encode(yuv))

    def finish(self) -> None:
        self.container.mux(self.stream.encode(None))


class _Sound:
    def __init__(self, container, audio: ArrayLike, sampling_rate: int | None):
        if not sampling_rate or sampling_rate <= 0:
            raise ValueError(f"expected the sound's sampling rate in Hz, got {sampling_rate}")
        audio = np.asarray(audio, np.float32)
        if audio.ndim != 1:
            raise ValueError(f"expected mono sound (S,), got {audio.shape}")
        self.container, self.audio, self.sampling_rate = container, audio, int(sampling_rate)
        self.stream = container.add_stream("aac", rate=self.sampling_rate, layout="mono")
        self.stream.codec_context.bit_rate = 96_000
        self.written = 0

    def write_until(self, seconds: Fraction) -> None:
        end = round(seconds * self.sampling_rate)
        samples = self.audio[self.written : end]
        samples = np.pad(samples, (0, end - self.written - len(samples)))
        if not len(samples):
            return
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[None]), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = self.sampling_rate, self.written
        frame.time_base = Fraction(1, self.sampling_rate)
        self.written = end
        self.container.mux(self.stream.encode(frame))

    def finish(self) -> None:
        self.container.mux(self.stream.encode(None))


# ------------------------------------------------------------------------------------------- panels


def side_by_side(
    panels: Sequence[Iterable[Frame]],
    labels: Sequence[str],
    speaking: Sequence[Callable[[int], bool] | ArrayLike | None] | None = None,
) -> Iterator[Frame]:
    """Panels of equal height next to each other, each with its label; ends with the shortest.

    `speaking` tells, a panel each, in which frames its head speaks (a (T,) bool array or a function of the
    frame's number; None: not shown): a lamp lights up beside the label.
    """
    return join_panels(zip(*panels), labels, speaking)


def join_panels(
    rows: Iterable[Sequence[Frame]],
    labels: Sequence[str],
    speaking: Sequence[Callable[[int], bool] | ArrayLike | None] | None = None,
) -> Iterator[Frame]:
    """`side_by_side` for frames that arrive row by row, as from `render.render_panels`."""
    lamps = list(speaking) if speaking is not None else [None] * len(labels)
    if len(lamps) != len(labels):
        raise ValueError(f"expected {len(labels)} speakers for as many labels, got {len(lamps)}")
    return _join(rows, list(labels), lamps)


def _join(rows: Iterable[Sequence[Frame]], labels: list[str], lamps: list) -> Iterator[Frame]:
    plates: dict[tuple[int, bool], _Plate] = {}
    for index, row in enumerate(rows):
        heights = {frame.shape[0] for frame in row}
        if len(row) != len(labels) or len(heights) != 1:
            raise ValueError(f"expected {len(labels)} panels of one height, got {len(row)} of {sorted(heights)}")
        width = sum(frame.shape[1] for frame in row) + GAP * (len(row) - 1)
        result = np.full((heights.pop(), width, 3), PAPER, np.uint8)
        left = 0
        for number, (frame, label, lamp) in enumerate(zip(row, labels, lamps)):
            view = result[:, left : left + frame.shape[1]]
            view[:] = frame
            lit = _speaks(lamp, index)
            if (number, lit) not in plates:
                plates[number, lit] = _Plate(label, frame.shape, None if lamp is None else lit)
            plates[number, lit].stamp(view)
            left += frame.shape[1] + GAP
        yield result


def _speaks(lamp, index: int) -> bool:
    if lamp is None:
        return False
    if callable(lamp):
        return bool(lamp(index))
    lamp = np.asarray(lamp)
    return bool(lamp[index]) if index < len(lamp) else False


class _Plate:
    """A label drawn once and laid over many frames."""

    def __init__(self, label: str, shape: tuple[int, ...], lit: bool | None):
        height, width = shape[:2]
        size, margin = _font_size(height), max(6, height // 32)
        lamp = 0 if lit is None else round(0.9 * size)
        text = _fit(label, size, width - 2 * margin - 2 * size - lamp)
        box = text.getbbox()
        w, h = box[2] + lamp + round(1.1 * size), round(1.75 * size)
        scale = 4  # PIL does not smooth the edges of shapes: draw them larger
        plate = Image.new("RGBA", (w * scale, h * scale))
        draw = ImageDraw.Draw(plate)
        draw.rounded_rectangle((0, 0, w * scale - 1, h * scale - 1), h * scale // 2, (*PAPER, 150))
        if lit is not None:
            x, y, r = (0.55 * size + 0.3 * size) * scale, h * scale / 2, 0.3 * size * scale
            draw.ellipse((x - r, y - r, x + r, y + r), (*ACCENT, 255) if lit else (*INK, 70))
        plate = plate.resize((w, h), Image.Resampling.LANCZOS)
        plate.alpha_composite(text, (round(0.55 * size) + lamp, (h - text.height) // 2))
        pixels = np.asarray(plate, np.float32)[: height - margin, : width - margin]
        self.rows = slice(height - margin - pixels.shape[0], height - margin)
        self.columns = slice(margin, margin + pixels.shape[1])
        self.alpha = pixels[..., 3:] / 255
        self.colors = pixels[..., :3] * self.alpha

    def stamp(self, frame: Frame) -> None:
        under = frame[self.rows, self.columns]
        frame[self.rows, self.columns] = (under * (1 - self.alpha) + self.colors + 0.5).astype(np.uint8)


def _font_size(height: int) -> int:
    return max(9, height // 28)


def _fit(label: str, size: int, width: int) -> Image.Image:  # -> transparent image of the text
    font = ImageFont.load_default(size)
    if font.getlength(label) > width:
        while label and font.getlength(label + "...") > width:
            label = label[:-1]
        label += "..."
    left, top, right, bottom = font.getbbox("Ayg|")
    text = Image.new("RGBA", (max(1, math.ceil(font.getlength(label))), bottom - top))
    ImageDraw.Draw(text).text((0, -top), label, font=font, fill=(*INK, 255))
    return text


# ------------------------------------------------------------------------------------------- pictures


def contact_sheet(
    frames: Iterable[Frame],
    every: int = 5,
    columns: int = 8,
    fps: float | None = None,
    width: int | None = None,
) -> Frame:
    """Every n-th frame in one picture, row by row; with `fps`, each with its time.

    `width` is the width of one picture in pixels (default: as the frames are).
    """
    if every < 1 or columns < 1:
        raise ValueError(f"expected every >= 1 and columns >= 1, got {every} and {columns}")
    cells = []
    for index, frame in enumerate(frames):
        if index % every:
            continue
        if width is not None and width != frame.shape[1]:
            height = max(1, round(frame.shape[0] * width / frame.shape[1]))
            frame = np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.LANCZOS))
        frame = np.array(frame)
        if fps is not None:
            _Plate(f"{index / fps:.2f} s", frame.shape, None).stamp(frame)
        cells.append(frame)
    if not cells:
        raise ValueError("expected at least one frame for a contact sheet, got none")
    columns = min(columns, len(cells))
    h, w = cells[0].shape[:2]
    rows = -(-len(cells) // columns)
    sheet = np.full((rows * (h + GAP) - GAP, columns * (w + GAP) - GAP, 3), PAPER, np.uint8)
    for index, cell in enumerate(cells):
        y, x = index // columns * (h + GAP), index % columns * (w + GAP)
        sheet[y : y + h, x : x + w] = cell
    return sheet


def save_png(path: str | Path, image: Frame) -> None:
    """Writes a picture, (H, W, 3) uint8."""
    with whole(path, shared=True) as temporary:
        Image.fromarray(image).save(temporary, format="PNG", optimize=False)


def plot_curves(
    path: str | Path,
    panels: Mapping[str, Mapping[str, tuple[ArrayLike, ArrayLike]]],  # panel -> curve -> steps (N,), values (N,)
) -> None:
    """How a training went: one panel each with its curves over the steps; the first is drawn thin, behind the others.

    Panels of positive values that span more than a factor of ten are logarithmic. Raises ValueError for no panel.
    """
    figure, axes = _figure(len(panels), dpi=90)
    for axis, (title, curves) in zip(axes, panels.items()):
        _style(axis, title, "step")
        for number, (label, (steps, values)) in enumerate(curves.items()):
            behind = number == 0 and len(curves) > 1
            axis.plot(
                steps, values, color="#9aa0a8" if behind else "#c8643c", linewidth=0.9 if behind else 2, label=label,
                marker="o" if len(np.atleast_1d(steps)) < 30 and not behind else "", markersize=3.5,
            )  # fmt: skip
        every = np.concatenate([np.asarray(values, float) for _, values in curves.values()])
        if every.size and every.min() > 0 and every.max() > 10 * every.min():
            axis.set_yscale("log")
        axis.legend(frameon=False, fontsize=8, labelcolor="#555b63")
    _save(figure, path)


def plot_sweep(
    path: str | Path,
    scales: Sequence[float],
    curves: Mapping[str, ArrayLike],  # each (S,), or (N, S) for N repetitions
    title: str | None = None,
) -> None:
    """What the knob does: one panel a curve over the context guidance scale, as a PNG (or what the suffix says).

    Repetitions are shown as their mean with a band of 95 % (1.96 standard errors).
    """
    x = np.asarray(scales, float)
    figure, axes = _figure(len(curves), 0.4 if title else 0)
    order = np.argsort(x)
    for axis, (name, values) in zip(axes, curves.items()):
        values = np.asarray(values, float)
        if values.shape[-1:] != x.shape:
            raise ValueError(f"expected {len(x)} values of {name!r}, one a scale, got {values.shape}")
        values = values.reshape(-1, len(x))[:, order]
        mean = values.mean(0)
        if len(values) > 1:
            error = 1.96 * values.std(0, ddof=1) / math.sqrt(len(values))
            axis.fill_between(x[order], mean - error, mean + error, color="#c8643c", alpha=0.18, linewidth=0)
        axis.plot(x[order], mean, "o-", color="#c8643c", linewidth=2, markersize=5, markeredgecolor="white")
        axis.axvline(1, color="#9aa0a8", linewidth=0.8, linestyle=(0, (4, 4)), zorder=0)
        _style(axis, name, "context guidance scale")
    if title:
        figure.suptitle(title, fontsize=12, x=0.01, ha="left", color="#22262c")
    _save(figure, path)


def _figure(count: int, extra_height: float = 0.0, dpi: int = 150):
    """A figure and the axes of its panels, at most three in a row; extra_height in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not count:
        raise ValueError("expected at least one curve, got none")
    columns = min(3, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(4.2 * columns, 3.1 * rows + extra_height), layout="constrained", dpi=dpi)
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes[count:]:
        axis.set_visible(False)
    return figure, axes[:count]


def _style(axis, title: str, x_label: str) -> None:
    axis.set_title(title, fontsize=11, loc="left", color="#22262c")
    axis.grid(axis="y", color="#e3e5e8", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.spines["bottom"].set_color("#9aa0a8")
    axis.tick_params(length=0, labelsize=9, colors="#555b63")
    axis.set_xlabel(x_label, fontsize=9, color="#555b63")
    axis.margins(y=0.12)


def _save(figure, path: str | Path) -> None:
    with whole(path, shared=True) as temporary:
        figure.savefig(temporary, format=Path(path).suffix.lstrip(".").lower() or "png")
