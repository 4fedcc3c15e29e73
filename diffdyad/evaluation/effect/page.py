"""The report: one HTML page that needs nothing beside it, and the same as JSON."""

from __future__ import annotations

import base64
import dataclasses
import html
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffdyad.evaluation.effect import pictures, where
from diffdyad.evaluation.effect.conditions import ABOUT, NEAR, NULL, OCCLUSION_S, PLACEBO
from diffdyad.evaluation.effect.inference import Effect
from diffdyad.evaluation.effect.protocol import Findings
from diffdyad.evaluation.report import Report
from diffdyad.head import HeadModel

FORMAT = 1
_CONTROL_FIGURES = (
    "energy_score_rms_mm", "face_vertex_error_mean_mm", "lip_vertex_error_max_mean_mm", "mouth_opening_error_mean_mm",
    "expression_error_rms", "head_rotation_error_mean_deg", "face_speed_mean_mm_s", "face_jerk_mean_mm_s3",
    "expression_variance_ratio", "jaw_audio_correlation_mean", "blinks_per_minute", "smiles_per_minute",
    "frechet_expression_per_channel", "frechet_expression_movement_per_channel",
)  # fmt: skip

_ROUNDING = 1e-8
_CONTROL = "control: "
_WRONG_ROW = f"{_CONTROL}another turn against none"
_PLACEBO_ROW = f"{_CONTROL}a wrong turn for the true one"
_CSS = Path(__file__).with_name("report.css")
_COLOURS = {"meaningful": "#2f855a", "not meaningful": "#9b2c2c", "cannot tell": "#b7791f"}


def to_json(value: Any) -> Any:
    """Dataclasses, arrays and numbers as JSON has them; what is undefined is null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        if isinstance(value, Report):
            return value.to_dict()
        fields = {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
        extra = {name: bool(getattr(value, name)) for name in ("holds", "is_usable") if hasattr(type(value), name)}
        return {**fields, **extra}
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return to_json(value.tolist())
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, np.generic):
        return value.item()
    return value


def knob(findings: Findings) -> dict:
    """What a checkpoint is told of its context: millimetres per scale and region, and the largest usable scale."""
    return {
        "format": FORMAT, "verdict": findings.verdict.word, "sentence": findings.verdict.sentence,
        "largest_usable_scale": findings.largest_scale,
        "change_mm": {f"{dose.scale:g}": to_json(dose.change_mm) for dose in findings.doses},
        "change_low_high_mm": {f"{dose.scale:g}": to_json(dose.change_low_high) for dose in findings.doses},
        "about": "mean change of the face's regions against scale 0, over the first "
                 f"{findings.facts['answer_s']:g} s of {findings.facts['answered']} answers; low and high: 95 % over "
                 "pairs of people",
    }  # fmt: skip


def to_html(
    findings: Findings, title: str, head: HeadModel | None, videos: Sequence[tuple[str, bytes]] = (),
    blind: dict | None = None, timings: Mapping[str, float] | None = None,
) -> str:
    """videos: caption and MP4; blind: what people answered, see `blind.read_answers`."""
    verdict, evidence, facts = findings.verdict, findings.evidence, findings.facts
    parts = [
        f"<h1>Does the context matter? {html.escape(title)}</h1>",
        f"<div class=verdict style='--c:{_COLOURS[verdict.word]}'><b>{verdict.word}</b>"
        f"<p>{html.escape(verdict.sentence)}</p></div>",
        f"<ul>{''.join(f'<li>{html.escape(reason)}</li>' for reason in verdict.reasons)}</ul>",
        f"<p class=note>{facts['exchanges']} exchanges of {facts['people']} people, {facts['units']} independent "
        f"pairs; the first {facts['answer_s']:g} s of each answer; {facts['answered']} exchanges answered "
        f"{facts['samples']} times under the true turn, another turn of the same speaker, and none, from the same "
        "noise. Endpoints are tested one-sided by sign flips over pairs at 5 %; brackets are 95 % bootstrap intervals "
        "over pairs.</p>",
        *(f"<p class=note>{html.escape(note)}</p>" for note in findings.notes),
        _endpoints(findings), _dose(findings, evidence), _modalities(findings), _retrieval(findings),
        _where(findings, head), _lips(findings), _videos(videos), _blind(blind), _controls(findings.controls),
        _about(facts, timings or {}),
    ]  # fmt: skip
    return (f"<!doctype html><html lang=en><head><meta charset=utf-8><meta name=viewport content='width=device-width'>"
            f"<title>Context effect: {html.escape(title)}</title><style>{_CSS.read_text(encoding='utf-8')}</style>"
            f"</head><body>{''.join(parts)}</body></html>\n")  # fmt: skip


def _image(png: bytes, alt: str, is_wide: bool = False) -> str:
    """is_wide: rather scrolled than shrunk until nothing can be read."""
    image = f"<img alt='{html.escape(alt, quote=True)}' src='data:image/png;base64,{base64.b64encode(png).decode()}'>"
    return f"<div class='scroll wide'>{image}</div>" if is_wide else image


def _number(value: float | None, digits: int = 3) -> str:
    if value is None or not math.isfinite(value):
        return "&ndash;"
    return "0" if abs(value) < _ROUNDING else f"{value:.{digits}g}"


def _brackets(interval) -> str:
    return f"[{_number(interval.low)}, {_number(interval.high)}]"


def _bounded(value: float, low: float, high: float) -> str:
    """In two lines, for tables of many columns."""
    return f"{_number(value)}<br><small>[{_number(low)}, {_number(high)}]</small>"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{cell}</th>" for cell in header)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<div class=scroll><table><tr>{head}</tr>{body}</table></div>"


def _effect_row(name: str, effect: Effect) -> list[str]:
    return [name, _number(effect.mean), f"[{_number(effect.low)}, {_number(effect.high)}]", _number(effect.p_value, 2),
            _number(effect.d_z, 2), str(effect.num_units)]  # fmt: skip


def _endpoints(findings: Findings) -> str:
    evidence, rows = findings.evidence, []
    for end in (evidence.gap, evidence.energy, evidence.retrieval):
        state = "not testable" if not end.testable else "holds" if end.holds else "does not hold"
        if not end.contrasts:
            rows.append([f"<b>{end.name}</b>: {state}", *["&ndash;"] * 5])
        rows += [_effect_row(f"<b>{end.name}</b> ({state}): against {name}, {end.unit}", effect)
                 for name, effect in end.contrasts.items()]  # fmt: skip
    rows += [_effect_row(f"loss gap, described: {name}", effect) for name, effect in findings.gaps.items()
             if name in ("swap-far", "time-scrambled")]  # fmt: skip
    rows += [_effect_row(f"{_CONTROL}placebo, {name}", effect) for name, effect in evidence.placebo.items()]
    power = evidence.power_at_smallest
    sizes = {**evidence.partial_r2, **{f"{_CONTROL}{name}, of another's answer": x
                                       for name, x in findings.r2_controls.items()}}  # fmt: skip
    r2 = [[name, f"{_number(100 * x.value)} %", f"[{_number(100 * x.low)}, {_number(100 * x.high)}] %",
           f"{_number(100 * power[name])} %" if name in power else "&ndash;"] for name, x in sizes.items()]  # fmt: skip
    contrasts = next(iter(findings.by_group.values()))
    groups = [[_PLACEBO_ROW if name == PLACEBO else name,
               *(_bounded(found[name].mean, found[name].low, found[name].high)
                 + f"<br>p = {_number(found[name].p_value, 2)}" for found in findings.by_group.values())]
              for name in contrasts]  # fmt: skip
    legend = "".join(f"<li><b>{name}</b>: {about}</li>" for name, about in ABOUT.items())
    return (
        "<h2>Endpoints</h2>" + _table(["endpoint", "effect", "95 %", "p", "d_z", "pairs"], rows)
        + "<p>Partial R² of the expression given the own audio (what the true turn explains and the other does not, at "
        "pure noise), with 90 % intervals, and the power to find the smallest effect of interest, "
        f"{100 * evidence.smallest_effect:g} %. Controls: the answer of other people, after a turn like it, is taken "
        "for the true one, which the context cannot tell.</p>"
        + _table(["against", "partial R²", "90 %", "power"], r2)
        + "<p>Loss gap by group of channels, in their variances:</p>"
        + _table(["against", *findings.by_group], groups) + f"<ul class=note>{legend}</ul>"
    )  # fmt: skip


def _dose(findings: Findings, evidence) -> str:
    if not findings.doses:
        return ("<h2>Dose</h2><p>Left out: only the verdict was asked for, or no head in the motion's basis was given "
                "for millimetres.</p>")  # fmt: skip
    regions = list(findings.doses[0].change_mm)
    rows = [[f"{d.scale:g}", *(_bounded(d.change_mm[r], *d.change_low_high[r]) for r in regions),
             _bounded(d.turn_mm["face"], *d.turn_low_high["face"]), _bounded(d.head_deg, *d.head_low_high),
             _number(d.cosine), _bounded(d.energy, d.energy_low, d.energy_high), _bounded(d.lips_mm, *d.lips_low_high),
             "yes" if d.lips_hold else "no", _bounded(d.lips_frame_mm, *d.lips_frame_low_high), _number(d.jerk),
             _number(d.speed),
             "yes" if d.is_usable else "no"]
            for d in findings.doses]  # fmt: skip
    rows.append([f"{_CONTROL}other noise, same turn", *(_number(findings.noise_mm.get(r)) for r in regions),
                 *["&ndash;"] * 10])  # fmt: skip
    return (
        f"<h2>Dose: the largest usable scale is {findings.largest_scale:g}"
        f"{', the highest that was tried' if findings.largest_scale == findings.doses[-1].scale else ''}</h2>"
        "<p class=note>Descriptive: guidance moves answers apart by construction. A scale may be used where its change "
        "has the direction of scale 1, the lips hold, and motion is neither jerkier nor stiffer than without.</p>"
        + _image(pictures.dose_curve(findings.doses, findings.largest_scale, evidence.lips.margin), "dose curve",
                 is_wide=True)
        + _table(["scale", *(f"{r}, mm" for r in regions), "from another turn, mm", "head, deg", "cosine",
                  "energy score", "lips, mm", "lips hold", "lips, frame by frame, mm", "jerk, ratio", "speed, ratio",
                  "usable"], rows)
    )  # fmt: skip


def _modalities(findings: Findings) -> str:
    effects = {f"without {name}": effect for name, effect in findings.modalities.items()}
    effects |= {f"{name} of another turn": effect for name, effect in findings.swapped_modalities.items()}
    whole = {NEAR: "all of another turn", NULL: "without all", PLACEBO: _PLACEBO_ROW}
    effects |= {whole[name]: findings.modality_controls[name] for name in (NULL, NEAR, PLACEBO)}
    return (
        "<h2>Which modality</h2><p class=note>How much worse the truth is denoised when one modality is left out, or "
        "taken from the near swap, all else as it was: leave one out, which has no order. Beside them the whole "
        "turn, and a control in which nothing may be found (two-sided).</p>"
        + _image(pictures.forest(effects, "loss gap by modality", "variances of the expression"), "forest plot")
        + _table(["modality", "effect", "95 %", "p", "d_z", "pairs"], [_effect_row(*x) for x in effects.items()])
    )  # fmt: skip


def _retrieval(findings: Findings) -> str:
    found, end = findings.retrieval, findings.evidence.retrieval
    if found is None:
        return f"<h2>Retrieval</h2><p>Not testable: {html.escape(end.why_not)}.</p>"
    text = "" if end.testable else f"<p><b>Not testable:</b> {html.escape(end.why_not)}.</p>"
    rows = [[name, *(f"{_number(value)} {_brackets(interval)}" for value, interval in zip(found.rows[name], intervals))]
            for name, intervals in found.intervals.items()]  # fmt: skip
    rows.append(["chance", *map(_number, found.chance)])
    return (
        f"<h2>Retrieval: which of {findings.facts['gallery']} turns came before?</h2>{text}<p class=note>A critic "
        f"fitted on {found.num_pairs} real pairs of other people. `truth` is its ceiling: real answers. They tell "
        f"their own turn from a near one by {_number(found.truth.mean)} of the reciprocal rank (p = "
        f"{_number(found.truth.p_value, 2)}).</p>"
        + _image(pictures.retrieval_bars(found.rows, found.chance), "retrieval against chance and ceiling")
        + _table(["answers to", "R@1", "mean reciprocal rank"], rows)
    )  # fmt: skip


def _where(findings: Findings, head: HeadModel | None) -> str:
    found, split = findings.where, findings.split
    if found is None or head is None:
        return ""
    regions = list(found.regions_mm[NULL])
    rows = [[_WRONG_ROW if name == where.WRONG else name,
             *(_number(found.regions_mm[name].get(region)) for region in regions),
             _number(found.head_deg.get(name))] for name in found.regions_mm]  # fmt: skip
    text = (
        "<h2>Where, when, and which part of the turn</h2><p class=note>Of the mean of what the model expects, true "
        "turn against none: descriptive.</p>"
        + _image(pictures.heat_map(head, found.heat_mm), "heat map on the head")
        + _table(["against", *(f"{r}, mm" for r in regions), "head, deg"], rows)
        + _image(pictures.time_curves(
            found.times_s, {"against none": found.curves_mm[NULL], "against another turn": found.curves_mm[NEAR]},
            "when"), "effect over time")
        + f"<p>Half of it is gone after {_lasting(found.half_life_s)}.</p>"
        + _image(pictures.occlusion_bars(found.occlusion_s, found.occlusion_mm, OCCLUSION_S), "occlusion")
    )  # fmt: skip
    if split is None:
        return text + "<p>Start against context: no exchange has another start of the same person.</p>"
    lasts = {name: where.half_life_s(split.times_s, curve) for name, curve in split.curves_mm.items()}
    shares = [[name, f"{100 * share:.1f} %"] for name, share in split.shares.items()]
    return (
        text + "<h2>Start against context</h2><p class=note>First frames and turn, each the own or another's, in "
        f"{split.num_exchanges} exchanges at the same noise: shares of the variance of the face's points.</p>"
        + _table(["", "share"], shares)
        + _image(pictures.time_curves(split.times_s, split.curves_mm, "how long the start and the turn last"), "split")
        + "".join(f"<p>Half of what the {name} does is gone after {_lasting(seconds)}.</p>"
                  for name, seconds in lasts.items())
    )  # fmt: skip


def _lasting(seconds: float) -> str:
    return f"{seconds:.2g} s" if math.isfinite(seconds) else "longer than what was looked at"


def _lips(findings: Findings) -> str:
    lips = findings.evidence.lips
    if lips is None:
        return ""
    return (
        f"<h2>Lips {'hold' if lips.holds else 'are not shown to hold'}</h2>"
        + _image(pictures.equivalence_bar(lips.mean, lips.low, lips.high, lips.margin), "equivalence of the lips")
        + f"<p>{lips.mean:.3f} mm, 90 % interval [{lips.low:.3f}, {lips.high:.3f}], margin {lips.margin:g} mm: "
        f"p = {lips.p_value:.2g} (two one-sided tests).</p>"
    )


def _videos(videos: Sequence[tuple[str, bytes]]) -> str:
    if not videos:
        return ""
    shown = "".join(
        f"<figure><video controls playsinline preload=auto src='data:video/mp4;base64,"
        f"{base64.b64encode(data).decode()}'></video>"
        f"<figcaption class=note>{html.escape(caption)}</figcaption></figure>"
        for caption, data in videos
    )
    return (f"<h2>Where the context changes most</h2>{shown}<p class=note><a href='blind/index.html'>The blind page</a>"
            " shows single answers in random order.</p>")  # fmt: skip


def _blind(blind: dict | None) -> str:
    if not blind:
        return ""
    rows = [[name, str(row["count"]), *(f"{100 * row[key]:.0f} %" for key in ("share", "low", "high", "chance"))]
            for name, row in blind.items()]  # fmt: skip
    return "<h2>What people said, blind</h2>" + _table(["question", "answers", "share", "from", "to", "chance"], rows)


def _controls(report: Report | None) -> str:
    if report is None:
        return ""
    rows = list(report.rows)
    lines = [line for line in report.lines if line.name in _CONTROL_FIGURES]

    def cell(row: str, figure: str) -> str:
        found = report.cells.get(("all", row, figure))
        if found is None or found.value is None:
            return "&ndash;"
        return _number(found.value) + (f" {_brackets(found)}" if row == rows[0] else "")

    table = [[line.name, *(cell(row, line.name) for row in rows)] for line in lines]
    return ("<h2>Control rows</h2><p class=note>The answers to the true turns, beside predictions that know nothing, "
            "or too much: a figure in which a control does as well says nothing about the model.</p>"
            + _table(["figure", *rows], table) + _undefined(report, rows, lines))  # fmt: skip


def _undefined(report: Report, rows: Sequence[str], lines) -> str:
    """Why cells are empty, once each."""
    cells = [(row, report.cells.get(("all", row, line.name))) for line in lines for row in rows]
    why = sorted({f"{row}: {cell.why}" for row, cell in cells if cell is not None and cell.value is None})
    return f"<p class=note>Not defined: {html.escape('; '.join(why))}.</p>" if why else ""


def _about(facts: dict, timings: Mapping[str, float]) -> str:
    rows = [[html.escape(key.replace("_", " ")), _fact(value)] for key, value in facts.items()]
    rows += [[f"{name}, seconds", f"{seconds:.0f}"] for name, seconds in timings.items()]
    return "<h2>The run</h2><div class=facts>" + _table(["", ""], rows) + "</div>"


def _fact(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{html.escape(str(name))} {_fact(part)}" for name, part in value.items())
    if value is None or isinstance(value, float):
        return _number(value, 4)
    return html.escape(str(value))
