"""Pictures of what the protocol found, as PNG bytes."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PolyCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from diffdyad.evaluation.effect.dose import NATURAL, Dose
from diffdyad.evaluation.effect.inference import Effect
from diffdyad.head import HeadModel

_BLUE, _ORANGE, _GREEN, _GREY = "#2b6cb0", "#c05621", "#2f855a", "#8a8f98"
_STYLE = {"axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25,
          "font.size": 9, "axes.titlesize": 10, "axes.titleweight": "bold"}  # fmt: skip


def _draw(size: tuple[float, float], columns: int, paint: Callable, dpi: int = 130) -> bytes:
    import matplotlib

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained", dpi=dpi)
        FigureCanvasAgg(figure)
        paint(figure.subplots(1, columns, squeeze=False)[0])
        out = io.BytesIO()
        figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()


def dose_curve(doses: Sequence[Dose], largest: float, margin_mm: float) -> bytes:
    """Change, direction, lips and naturalness over the guidance scale; what may be used is shaded."""
    scales = [dose.scale for dose in doses]

    def paint(axes) -> None:
        for name in doses[0].change_mm:
            line = axes[0].plot(scales, [dose.change_mm[name] for dose in doses], "o-", label=name, ms=3)[0]
            low, high = zip(*[dose.change_low_high[name] for dose in doses])
            axes[0].fill_between(scales, low, high, alpha=0.15, color=line.get_color(), lw=0)
        axes[0].set(title="change from no context", ylabel="mm, mean over the region")
        axes[0].legend(frameon=False, fontsize=8)
        axes[1].plot(scales[1:], [dose.cosine for dose in doses][1:], "o-", color=_BLUE, ms=3)
        axes[1].set(title="same direction as at scale 1", ylabel="cosine", ylim=(0, 1.05))
        energy = np.array([[dose.energy, dose.energy_low, dose.energy_high] for dose in doses])
        axes[2].plot(scales, energy[:, 0], "o-", color=_GREEN, ms=3)
        axes[2].fill_between(scales, energy[:, 1], energy[:, 2], color=_GREEN, alpha=0.15)
        axes[2].axhline(0, color=_GREY, lw=0.8)
        axes[2].set(title="distance to the truth (below 0: nearer)", ylabel="energy score less that at 0")
        axes[3].plot(scales, [dose.lips_mm for dose in doses], "o-", color=_ORANGE, ms=3, label="mean opening, mm")
        axes[3].fill_between(scales, *zip(*[dose.lips_low_high for dose in doses]), color=_ORANGE, alpha=0.15, lw=0)
        axes[3].axhspan(-margin_mm, margin_mm, color=_GREY, alpha=0.15)
        axes[3].plot(scales, [dose.jerk - 1 for dose in doses], "s--", color=_BLUE, ms=3, label="jerk, share more")
        axes[3].axhline(NATURAL[1] - 1, color=_BLUE, lw=0.8, ls=":")
        axes[3].set(title="lips and smoothness", ylabel="change from scale 0")
        low, high = axes[3].get_ylim()
        axes[3].set_ylim(low, high + 0.3 * (high - low))  # room for the legend
        axes[3].legend(frameon=False, fontsize=8, loc="upper left")
        for axis in axes:
            axis.axvspan(0, largest, color=_GREEN, alpha=0.06, lw=0)
            axis.axvline(largest, color=_GREEN, lw=1, ls="--")
            axis.set_xlabel("guidance scale")

    return _draw((13, 3.1), 4, paint)


def forest(effects: Mapping[str, Effect], title: str, unit: str) -> bytes:
    """A line per effect: mean and 95 % interval, against zero."""

    def paint(axes) -> None:
        axis = axes[0]
        for place, effect in enumerate(reversed(effects.values())):
            colour = _BLUE if effect.low > 0 else _ORANGE if effect.high < 0 else _GREY
            axis.plot([effect.low, effect.high], [place, place], color=colour, lw=2)
            axis.plot(effect.mean, place, "o", color=colour)
        axis.axvline(0, color="black", lw=0.8)
        axis.set_yticks(range(len(effects)), list(reversed(effects)))
        axis.set(title=title, xlabel=unit, ylim=(-0.6, len(effects) - 0.4))

    return _draw((7, 0.7 + 0.32 * len(effects)), 1, paint)


def retrieval_bars(rows: Mapping[str, tuple[float, float]], chance: tuple[float, float]) -> bytes:
    """rows: name -> (R@1, mean reciprocal rank); chance as a line."""

    def paint(axes) -> None:
        for column, what in enumerate(("R@1", "mean reciprocal rank")):
            values = [row[column] for row in rows.values()]
            colours = [_GREEN if name == "truth" else _BLUE for name in rows]
            axes[column].barh(range(len(rows)), values, color=colours)
            axes[column].axvline(chance[column], color=_ORANGE, ls="--", label="chance")
            axes[column].set_yticks(range(len(rows)), list(rows) if column == 0 else [""] * len(rows))
            axes[column].invert_yaxis()
            axes[column].set(title=what, xlabel="share" if column == 0 else "")
            axes[column].legend(frameon=False, fontsize=8)

    return _draw((8, 0.9 + 0.35 * len(rows)), 2, paint)


def heat_map(head: HeadModel, heat_mm: np.ndarray) -> bytes:
    """The head from the front and from the side, coloured by how far each vertex moves: (V,) mm."""
    points, faces = head.template.numpy(), head.faces.numpy()
    corners = points[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    top = max(float(np.quantile(heat_mm, 0.995)), 1e-6)
    middle = points.mean(0)
    reach = np.linalg.norm(points[:, [0, 2]] - middle[[0, 2]], axis=1).max()
    colours = ScalarMappable(Normalize(0, top), "YlOrRd")

    def paint(axes) -> None:
        for axis, angle, title in zip(axes, (0.0, 0.7), ("front", "three quarters")):
            turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
            seen, facing = (points - middle * [1, 0, 1]) @ turn.T, normals @ turn.T
            depth = seen[faces, 2].mean(1)
            shown = np.flatnonzero(facing[:, 2] > 0)
            shown = shown[np.argsort(depth[shown])]  # what is nearer is drawn later
            light = np.clip(facing[shown, 2] / np.maximum(np.linalg.norm(facing[shown], axis=1), 1e-12), 0, 1)
            paint = colours.to_rgba(heat_mm[faces[shown]].mean(1))
            paint[:, :3] *= (0.5 + 0.5 * light)[:, None]
            axis.add_collection(PolyCollection(seen[faces[shown], :2], facecolors=paint, edgecolors=paint, lw=0.2))
            axis.set(xlim=(-reach, reach), ylim=(points[:, 1].min(), points[:, 1].max()))  # both at one scale
            axis.set_aspect("equal")
            axis.set_axis_off()
            axis.set_title(title)
        axes[0].figure.colorbar(colours, ax=list(axes), label="mm", shrink=0.7)

    return _draw((7.5, 4), 2, paint)


def time_curves(times_s: np.ndarray, curves: Mapping[str, np.ndarray], title: str) -> bytes:
    """Millimetres against seconds since the onset."""

    def paint(axes) -> None:
        for (name, curve), colour in zip(curves.items(), (_BLUE, _ORANGE, _GREEN)):
            axes[0].plot(times_s, curve, color=colour, label=name)
        axes[0].set(title=title, xlabel="seconds since the answer's onset", ylabel="change of the face, mm",
                    ylim=(0, None))  # fmt: skip
        axes[0].legend(frameon=False)

    return _draw((6, 3), 1, paint)


def occlusion_bars(seconds: np.ndarray, change_mm: np.ndarray, width_s: float) -> bytes:
    """Change of the answer where so much of the turn is hidden; time runs to the right, the turn ends at 0."""

    def paint(axes) -> None:
        known = np.isfinite(change_mm)
        axes[0].bar(-seconds[known] - width_s / 2, change_mm[known], width=0.9 * width_s, color=_BLUE)
        axes[0].set(title="which part of the turn moved the face", xlabel="seconds before the turn's end",
                    ylabel="change when hidden, mm")  # fmt: skip

    return _draw((6, 3), 1, paint)


def equivalence_bar(mean: float, low: float, high: float, margin: float) -> bytes:
    """The 90 % interval of the change of the lips' opening within the margin."""

    def paint(axes) -> None:
        axes[0].axvspan(-margin, margin, color=_GREEN, alpha=0.12)
        axes[0].plot([low, high], [0, 0], color=_BLUE, lw=3)
        axes[0].plot(mean, 0, "o", color=_BLUE)
        axes[0].axvline(0, color="black", lw=0.8)
        axes[0].set_yticks([])
        axes[0].set(title="lips' opening, true turn less none", xlabel="mm (shaded: the margin)",
                    xlim=(-1.6 * max(margin, abs(low), abs(high)), 1.6 * max(margin, abs(low), abs(high))))  # fmt: skip

    return _draw((6, 1.5), 1, paint)
