"""`diffdyad context`: the context-effect protocol as one command, on one process or several."""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import os
import sys
import time
import wave
from collections import Counter
from collections.abc import Callable
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from accelerate import PartialState
from torch import Tensor
from tqdm.auto import tqdm

from diffdyad.data.exchange import ExchangeShards, shards
from diffdyad.data.intake import Shard
from diffdyad.data.sides import previous_turn
from diffdyad.errors import UserError
from diffdyad.evaluation.effect import blind, page
from diffdyad.evaluation.effect import power as power_before
from diffdyad.evaluation.effect.answers import Answers, Ask
from diffdyad.evaluation.effect.conditions import NEAR, NULL, TRUE
from diffdyad.evaluation.effect.inference import FEWEST_UNITS
from diffdyad.evaluation.effect.protocol import NUM_SAMPLES, Findings, conclude, measure
from diffdyad.evaluation.effect.reading import Reading, cut_at_onset, read_items, usable
from diffdyad.evaluation.effect.setting import Crew, ProtocolSettings, Setting, check_faces, first_pairs, prepare
from diffdyad.export import join_panels, write_video
from diffdyad.head import HeadModel
from diffdyad.knob import store_knob
from diffdyad.media import SAMPLING_RATE, normalise_loudness
from diffdyad.pipeline import DyadPipeline
from diffdyad.render import Renderer, render_frames
from diffdyad.sample import load_pipeline
from diffdyad.staging import write_text

NUM_CLIPS = 6
_PATIENCE = timedelta(days=1)
"""That processes wait for each other: one reads the dataset for all, and they need not be equally fast."""

_SIZE = 288  # pixels of a panel
_LABELS = {TRUE: "true turn", NEAR: "another turn", NULL: "no turn"}


def run(arguments: argparse.Namespace, progress: bool) -> None:
    """Runs the protocol, or goes on with it, and writes the report."""
    state = PartialState(cpu=arguments.device == "cpu", timeout=_PATIENCE)
    device = str(state.device) if arguments.device == "auto" else arguments.device
    out, cache = Path(arguments.out), Path(arguments.out) / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    settings = _settings(arguments, cache)
    clock: dict[str, float] = {}
    crew = Crew((state.process_index, state.num_processes), state.wait_for_everyone, _bars(state, progress))
    with _timed(clock, "reading"):
        pipeline = load_pipeline(arguments.model, device)
        placebo = None if arguments.placebo is None else load_pipeline(arguments.placebo, device)
        head = _head(arguments.head, pipeline)
        if arguments.store and head is None:
            raise UserError(f"expected --head FILE in the model's basis {pipeline.layout.basis} for --store, found "
                            "none: without one no millimetres are known")  # fmt: skip
        if head is None and state.is_main_process:
            print(f"no head in the model's basis {pipeline.layout.basis} (--head FILE): lips cannot be shown to hold, "
                  "and the verdict cannot be 'meaningful'", file=sys.stderr)  # fmt: skip
        setting = prepare(pipeline, settings, crew)
    with _timed(clock, "measuring"):
        network, answers = measure(pipeline, setting, settings, crew, placebo)
    if not state.is_main_process:
        return
    with _timed(clock, "concluding"):
        findings = conclude(network, answers, setting, settings, crew, head, placebo)
    findings.facts |= {"dataset": str(arguments.dataset), "model": arguments.model, "commit": pipeline.commit,
                       "processes": state.num_processes}  # fmt: skip
    videos = []
    if arguments.video and head is not None and not settings.verdict_only:
        with _timed(clock, "videos"):
            videos = _clips(arguments, settings, setting, answers, head, out, crew.bar("videos"))
    judged = blind.read_answers(out / "blind", arguments.answers)
    _write(out, findings, arguments, head, videos, judged, clock)
    files = f"report.html, report.json{', knob.json' if findings.doses else ''}"
    print(f"{out}: {files}\n{findings.verdict.word}: {findings.verdict.sentence}\n"
          + "\n".join(f"  {reason}" for reason in findings.verdict.reasons))  # fmt: skip


def power(arguments: argparse.Namespace, progress: bool) -> None:
    """Prints how many pairs an effect needs: the dataset alone, with the embedded model's features of the voices."""
    pipeline = load_pipeline(arguments.model, "cpu")
    reading, workers = Reading.of(pipeline), arguments.workers or os.cpu_count() or 1
    # of the turn it is enough to know that there is one
    context = {**reading.settings.context_encoder, "modalities": ["prosody"]}
    first = shards(arguments.dataset, arguments.split)[0]
    one = next(iter(Shard(first, audio=False)), None)
    if one is None:
        raise UserError(f"expected exchanges in {first}, found none")
    layout = one.layout
    reading = Reading(dataclasses.replace(reading.settings, context_encoder=context), (layout, pipeline.fps))
    with TemporaryDirectory() as folder:
        bar = _bars(None, progress)("reading")
        items = read_items(arguments.dataset, arguments.split, Path(folder), reading, workers, progress=bar)
        items = first_pairs(usable(items, pipeline.fps), arguments.limit_pairs)
    units = len({item.unit for item in items})
    if units < 2:
        raise UserError(f"expected at least 2 independent pairs of people in the split {arguments.split} of "
                        f"{arguments.dataset}, found {units} ({len(items)} exchanges): how much pairs differ cannot be "
                        "told from one")  # fmt: skip
    check_faces(items, layout, f"the split {arguments.split} of {arguments.dataset}")
    turns = Counter((item.session, item.previous_speaker) for item in items)
    alone = sum(count for count in turns.values() if count == 1)
    frames = round(arguments.answer_s * pipeline.fps)
    effects = sorted({*power_before.EFFECTS, arguments.smallest_effect})
    known = layout == pipeline.layout
    stats = pipeline.statistics if known else power_before.statistics_of(items, layout, pipeline.fps)
    rows = power_before.power_table(items, stats, frames, np.random.default_rng(arguments.seed), effects)
    print(f"{arguments.dataset}, {arguments.split}: {len(items)} exchanges, {units} independent pairs"
          + ("" if units >= FEWEST_UNITS else f"; the protocol wants at least {FEWEST_UNITS}"))
    if 2 * alone > len(items):
        print(f"{alone} of them have no other turn of the same speaker in the session, to which the protocol would "
              "compare: it will refuse sessions of one exchange")  # fmt: skip
    print("An ideal model's loss gap against another turn, and against none; one-sided tests at 5 %:")
    print(f"{'partial R2':>12} {'d_z':>16} {'power here':>18} {'pairs for 90 %':>24}")
    for near, null in zip(rows[::2], rows[1::2]):
        needed = [">1000000" if row.needed is None else str(max(row.needed, FEWEST_UNITS)) for row in (near, null)]
        mark = "  <- smallest of interest" if near.partial_r2 == arguments.smallest_effect else ""
        print(f"{near.partial_r2:>12.4g} {near.d_z:>8.2f}{null.d_z:>8.2f} {100 * near.power:>8.0f} %"
              f"{100 * null.power:>6.0f} % {needed[0]:>14}{needed[1]:>10}{mark}")  # fmt: skip


def _settings(arguments: argparse.Namespace, cache: Path) -> ProtocolSettings:
    names = {field.name for field in dataclasses.fields(ProtocolSettings)}
    given = {name: value for name, value in vars(arguments).items() if name in names}
    return ProtocolSettings(**{**given, "cache": cache, "workers": arguments.workers or os.cpu_count() or 1})


def _head(name: str | None, pipeline: DyadPipeline) -> HeadModel | None:
    if name is not None and name != "clay":
        head = HeadModel.from_file(name)
        if head.basis != pipeline.layout.basis:
            wanted = pipeline.layout.basis
            raise UserError(f"expected --head in the model's basis {wanted}, found {head.basis} in {name}")
        return head
    return HeadModel.clay() if pipeline.layout.basis == "arkit" else None


def _write(out: Path, findings: Findings, arguments, head, videos, judged, clock) -> None:
    if arguments.store:
        store_knob(arguments.model, page.knob(findings))
    title = f"{Path(arguments.model).name} on {Path(arguments.dataset).resolve().name}"
    document = {
        "format": page.FORMAT, **page.to_json(findings), "blind": judged,
        "knob": page.knob(findings) if findings.doses else None,
        "seconds": {name: round(seconds, 1) for name, seconds in clock.items()},
    }  # fmt: skip
    texts = {
        "report.json": json.dumps(document, indent=1, allow_nan=False) + "\n",
        "report.html": page.to_html(findings, title, head, videos, judged, clock),
    }
    if findings.doses:
        texts["knob.json"] = json.dumps(page.knob(findings), indent=1) + "\n"
    for name, text in texts.items():
        write_text(out / name, text)


# --------------------------------------------------------------------------------------------- videos


def _clips(
    arguments, settings: ProtocolSettings, setting: Setting, answers: Answers, head: HeadModel, out: Path,
    progress: Callable[[int, int], None],
) -> list[tuple[str, bytes]]:
    """The exchanges in which the true turn changes most, side by side; and the blind page beside them."""
    changes = []
    layout = answers.network.pipeline.layout
    for index in setting.chosen:
        pair = [answers(Ask(index, name, 1.0, NUM_SAMPLES))[:1] for name in (TRUE, NULL)]
        difference = layout.select(pair[0] - pair[1], "expression")
        changes.append(float(difference.square().mean()))
    most = [setting.chosen[k] for k in np.argsort(changes)[::-1][:NUM_CLIPS]]
    renderer = Renderer.for_head(head, size=(_SIZE, _SIZE))
    shards, folder = ExchangeShards(arguments.dataset, settings.split), out / "cache" / "videos"
    place = {str(shards.row(k, ["exchange_id"])["exchange_id"]): k for k in range(len(shards))}
    folder.mkdir(parents=True, exist_ok=True)
    shown, trials = [], []
    for done, index in enumerate(most, start=1):
        item, frames = setting.items[index], {}
        sound = normalise_loudness(item.audio, SAMPLING_RATE).clamp(-1, 1)
        for name in _LABELS:
            motion = answers(Ask(index, name, 1.0, NUM_SAMPLES))[0]
            with torch.no_grad():
                vertices = (v for values in motion.split(16) for v in head.from_motion(values, layout).numpy())
                with closing(render_frames(renderer, vertices, settings.workers)) as pictures:
                    frames[name] = list(pictures)
        fps = answers.network.pipeline.fps
        joined = join_panels(zip(*frames.values()), [_LABELS[name] for name in frames])
        side = _video(folder / "side.mp4", joined, fps, sound)
        single = {name: _video(folder / "single.mp4", iter(found), fps, sound) for name, found in frames.items()}
        turns = {name: _turn(shards[place[setting.items[k].name]])
                 for name, k in ((TRUE, index), (NEAR, int(setting.swaps.near[index])))}  # fmt: skip
        said = shards.row(place[item.name], ["previous_text", "responder_text"])
        shown.append((f"{item.name}: after “{said['previous_text']}”; answer: “{said['responder_text']}”", side))
        trials.append(blind.Trial(item.name, single, turns))
        progress(done, len(most))
    blind.write_page(out / "blind", trials, np.random.default_rng([settings.seed, 6]))
    return shown


def _video(path: Path, frames, fps: float, sound: Tensor) -> bytes:
    write_video(path, frames, fps, sound.numpy(), SAMPLING_RATE, crf=24)
    content = path.read_bytes()
    path.unlink()
    return content


def _turn(exchange) -> bytes:
    """The previous turn's last 6 s, as the model hears it, as WAV."""
    audio = previous_turn(cut_at_onset(exchange)).audio
    audio = torch.zeros(SAMPLING_RATE) if audio is None else normalise_loudness(audio, SAMPLING_RATE)
    samples = (audio[-6 * SAMPLING_RATE :].clamp(-1, 1) * 32767).short().numpy().tobytes()
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLING_RATE)
        file.writeframes(samples)
    return out.getvalue()


# ------------------------------------------------------------------------------------------- progress


def _bars(state: PartialState | None, shown: bool) -> Callable[[str], Callable[[int, int], None]]:
    """A bar per stage with the time left on a terminal; elsewhere a line per stage, and one a minute."""
    main = state is None or state.is_main_process
    bars: dict[str, tqdm] = {}
    said: dict[str, float] = {}

    def bar(label: str) -> Callable[[int, int], None]:
        begun = time.monotonic()

        def update(done: int, total: int) -> None:
            if not main:
                return
            if shown:
                if label not in bars:
                    bars[label] = tqdm(desc=label, total=total)
                bars[label].update(done - bars[label].n)
                if done >= total:
                    bars.pop(label).close()
            elif done == total or time.monotonic() - said.get(label, begun) > 60:
                said[label] = time.monotonic()
                left = (time.monotonic() - begun) / max(done, 1) * (total - done)
                print(f"{label}: {done} of {total}, about {left:.0f} s left", file=sys.stderr, flush=True)

        return update

    return bar


@contextmanager
def _timed(clock: dict[str, float], name: str):
    begun = time.monotonic()
    yield
    clock[name] = time.monotonic() - begun
