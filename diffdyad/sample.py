"""What `sample.py` does: two voices in; motions, a video and a record of how they came about out.

Everything is checked before the long work: settings, then the output folder, the input files, the model.
"""

from __future__ import annotations

import json
import platform
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

import diffdyad
from diffdyad import hub, schedulers
from diffdyad.config import asset_path
from diffdyad.context import PreviousTurn
from diffdyad.errors import UserError
from diffdyad.flame import FLAME_BASES
from diffdyad.head import HeadModel
from diffdyad.inputs import Inputs, exchange_folder, read_inputs
from diffdyad.knob import describe_knob
from diffdyad.media import SAMPLING_RATE
from diffdyad.motion import save_motion
from diffdyad.pipeline import DyadPipeline
from diffdyad.retarget import Retarget
from diffdyad.settings import SampleSettings, folder_name
from diffdyad.staging import DISK_FULL, staged

_OWN_FILES = re.compile(r"(motion|listening)[\w.+-]*\.npz|video\.mp4|sweep\.png|sample\.json")
_LONG_ANSWER_S = 180.0
_VERSIONS = ("torch", "diffusers", "transformers", "numpy", "av", "soxr")


@dataclass
class SampleResult:
    """out: the folder; files: their names in it; record: what sample.json says."""

    out: Path
    files: list[str]
    record: dict = field(repr=False)


def sample(settings: SampleSettings) -> SampleResult:
    """Runs one call of `diffdyad sample` and returns what it wrote.

    Raises UserError for what the user can mend. Whatever is raised, nothing half-written is left.
    """
    clock = _Clock()
    exchange = exchange_folder(settings.exchange) if settings.audio is None else None
    name = exchange.resolve().name if exchange else folder_name(settings.audio)
    out = Path(settings.out) if settings.out is not None else Path("outputs") / name
    with staged(out, settings.files, replaced=_earlier_files(out)) as folder:
        with clock("read"):
            landmarker = None
            if settings.context_video:
                from diffdyad.context_video import check_video

                landmarker = check_video(settings.context_video)
            inputs = read_inputs(settings, exchange)
            head = _load_head(settings)
        with clock("load"):
            pipeline = load_pipeline(settings.model, settings.device, settings.dtype)
            retarget = _check_head(head, pipeline, settings)
            if settings.scheduler is not None:
                pipeline.scheduler = schedulers.sampler(settings.scheduler, pipeline.scheduler)
            _check_steps(settings, pipeline)
        tracked = None
        if landmarker is not None:
            with clock("track"):
                tracked = _track(settings, pipeline, inputs, head, landmarker)
        with clock("context"):
            if exchange is not None or settings.context_video:
                inputs.previous = _what_can_be_taken(pipeline, inputs.previous)
            empty = inputs.previous.is_empty
            context = None if empty else pipeline.encode_context(inputs.previous, "the previous turn")
        with clock("sample"):
            answers, listening = _answer(settings, pipeline, inputs, context)
        own = answers  # in the model's basis
        if retarget is not None:
            with clock("retarget"):
                answers = [[retarget(motion) for motion in row] for row in answers]
                listening = [[retarget(motion) for motion in row] for row in listening or []] or None
        with clock("write"):
            _write_motions(settings, folder, answers, listening)
        if settings.is_sweep:
            from diffdyad.film import plot

            with clock("plot"):
                own_head = head if retarget is None else HeadModel.clay()
                fits = own_head is not None and own_head.basis == pipeline.layout.basis
                plot(folder / "sweep.png", own, settings.guidance_scale, own_head if fits else None)
        if settings.video:
            with clock("video"):
                _write_video(settings, folder / "video.mp4", head, answers, listening, inputs)
        record = _record(settings, pipeline, inputs, exchange, answers, listening, clock)
        record["resolved"]["context_video"] = tracked
        (folder / "sample.json").write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return SampleResult(out, settings.files, record)


def _what_can_be_taken(pipeline: DyadPipeline, turn: PreviousTurn) -> PreviousTurn:
    """An exchange's previous turn less what this model does not take, or cannot here: the text encoder is an extra."""
    turn = pipeline.context_encoder.taken(turn)
    if turn.text or turn.words:
        try:
            pipeline.context_encoder.text_encoder().encode(["yes"])
        except UserError as error:
            _note(f"the words of the previous turn are left out: {error}")
            return replace(turn, text=None, words=())
    return turn


def _track(settings: SampleSettings, pipeline: DyadPipeline, inputs: Inputs, head: HeadModel | None, landmarker):
    """Puts the face of the context's video into the previous turn; what is to be said of it in sample.json."""
    if "motion" not in pipeline.context_encoder.modalities:
        _note("this model takes no motion of the previous speaker: of the video, its sound is the context")
        return None
    basis = pipeline.layout.basis
    if basis == "arkit":
        head = HeadModel.clay()
    elif head is None or head.basis != basis or head.num_expression != pipeline.layout.num_expression:
        wanted = f"{basis} with {pipeline.layout.num_expression} expressions"
        found = "none" if head is None else f"{head.basis} with {head.num_expression}"
        raise UserError("the face of --context-video is fitted with a head of the model's basis: expected --head FILE "
                        f"in {wanted}, found {found}")  # fmt: skip
    from diffdyad.context_video import track_turn

    audio = inputs.previous.audio
    turn = track_turn(settings.context_video, landmarker, head, None if audio is None else len(audio) / SAMPLING_RATE)
    inputs.previous = replace(inputs.previous, motion=turn.motion)
    return turn.about


# -------------------------------------------------------------------------------------------- parts


def load_pipeline(model: str, device: str = "auto", dtype: str = "float32") -> DyadPipeline:
    """A pipeline by `default`, by folder or by USER/REPO[@REVISION] of the Hub, on a device ("auto": CUDA, if any).

    Raises UserError where there is none, or it does not load.
    """
    target = _device(device)
    from_hub = False
    if model == "default":
        place = asset_path("default")
    elif Path(model).is_dir():
        place = Path(model)
        if not (place / "model_index.json").is_file():
            raise UserError(f"expected a diffdyad pipeline in the folder {model}, found no model_index.json")
    elif Path(model).exists() or not hub.is_repository(model):
        raise UserError(f"expected --model default, a pipeline's folder or USER/REPO[@REVISION], found {model!r}")
    else:
        place, from_hub = model, True
    try:
        pipeline = DyadPipeline.from_pretrained(place, dtype=getattr(torch, dtype)).to(target)
    except (UserError, MemoryError):
        raise
    except Exception as error:  # whatever a damaged or foreign checkpoint makes its readers raise
        if getattr(error, "errno", None) in DISK_FULL:
            raise
        where = f"{model} from the Hub" if from_hub else f"the folder {place}"
        reason = _one_line(error)
        raise UserError(f"expected a diffdyad pipeline, found none that loads in {where}: {reason}") from error
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device).cpu()
    except Exception as error:  # RuntimeError, AssertionError, NotImplementedError: as the device likes
        reason = _one_line(error)
        raise UserError(f"expected --device auto, cpu, cuda, cuda:1, ..., cannot use {name!r}: {reason}") from None
    return device


def _load_head(settings: SampleSettings) -> HeadModel | None:
    if settings.head != "clay":
        return HeadModel.from_file(settings.head)
    return HeadModel.clay() if settings.video or settings.is_sweep else None


def _check_head(head: HeadModel | None, pipeline: DyadPipeline, settings: SampleSettings) -> Retarget | None:
    """What takes the model's motion to the head, where it speaks ARKit's basis and the head FLAME's."""
    needed = settings.video or settings.head != "clay"
    if head is None or not needed:
        return None
    basis, where = pipeline.layout.basis, "" if settings.head == "clay" else f" in {settings.head}"
    if basis == "arkit" and head.basis in FLAME_BASES:
        if head.num_expression == 0:
            raise UserError(
                f"expected a FLAME file with expression directions to retarget the model's {basis} expressions to, "
                f"found none in {settings.head} ({head.basis}); give the full head file, or leave out --head"
            )
        return Retarget.fit(HeadModel.clay(), head)
    if head.basis != basis:
        instead = f"a head in {basis}" if where else f"--head FILE in {basis}, or --no-video"
        raise UserError(
            f"expected a head in the model's expression basis {basis}, found basis {head.basis}{where}; one basis "
            f"cannot drive another: give {instead}, or a model trained in {head.basis}"
        )
    if head.num_expression < pipeline.layout.num_expression:
        raise UserError(
            f"expected a head with {pipeline.layout.num_expression} expression directions, found "
            f"{head.num_expression}{where}; give the full head file"
        )
    return None


def _check_steps(settings: SampleSettings, pipeline: DyadPipeline) -> None:
    most = pipeline.scheduler.config.num_train_timesteps
    if settings.steps is not None and settings.steps > most:
        raise UserError(f"expected --steps of at most {most}, the model's training timesteps, found {settings.steps}")


# ------------------------------------------------------------------------------------------ sampling


def _answer(settings: SampleSettings, pipeline: DyadPipeline, inputs: Inputs, context) -> tuple[list, list | None]:
    """Answers and listening phases, [scale][sample]. Scales run one after another on the same noise."""
    answers, listening = [], []
    for scale in settings.guidance_scale:
        label = f"sampling, scale {scale:g}" if settings.is_sweep else "sampling"
        with _bar(label, "frame") as update:
            output = pipeline(
                inputs.audio,
                context=context,
                guidance_scale=scale,
                audio_guidance_scale=settings.audio_guidance_scale,
                start=inputs.start,
                style=inputs.style,
                num_inference_steps=settings.steps,
                num_samples=settings.num_samples,
                generator=torch.Generator().manual_seed(settings.seed),
                progress=update,
            )
        answers.append(output.motions)
        if not all(motion.values.isfinite().all() for motion in output.motions):
            raise UserError(
                f"the model generated numbers that are not finite at guidance scale {scale:g} ({settings.dtype}, "
                f"{settings.steps or pipeline.config.num_inference_steps} steps); try --dtype float32, smaller scales"
            )
        listening.append(output.listening)
    return answers, listening if inputs.start == "listen" else None


def _write_motions(settings: SampleSettings, folder: Path, answers: list, listening: list | None) -> None:
    for kind, motions in (("motion", answers), ("listening", listening)):
        for scale, row in zip(settings.guidance_scale, motions or []):
            for number, motion in enumerate(row):
                save_motion(folder / settings.name(kind, scale, number), motion)


def _write_video(
    settings: SampleSettings, path: Path, head: HeadModel, answers: list, listening: list | None, inputs: Inputs
) -> None:
    from diffdyad.film import MOST_PANELS, Panel, film, soundtrack

    if settings.is_sweep:
        chosen = [(f"guidance {w:g}", k, 0) for k, w in enumerate(settings.guidance_scale)]
    else:
        chosen = [(f"sample {number}", 0, number) for number in range(settings.num_samples)]
    if len(chosen) > MOST_PANELS:
        _note(f"video.mp4 shows the first {MOST_PANELS} of {len(chosen)} answers")
    panels = []
    for label, row, column in chosen[:MOST_PANELS]:
        before = [listening[row][column]] if listening else []
        panels.append(Panel(label, [*before, answers[row][column]], sum(map(len, before))))
    fps, lead = answers[0][0].fps, panels[0].speaks_from
    total = panels[0].num_frames
    if total / fps > _LONG_ANSWER_S:
        _note(f"rendering {total / fps / 60:.0f} minutes of video takes a while; --no-video leaves it out")
    sound = soundtrack(
        inputs.audio, inputs.previous.audio, inputs.previous.gap_s, lead / fps, (total - lead) / fps, SAMPLING_RATE
    )
    with _bar("rendering", "frame") as update:
        film(path, head, panels, sound, SAMPLING_RATE, lambda done: update(done, total))


# ------------------------------------------------------------------------------------------- record


def _record(
    settings: SampleSettings, pipeline: DyadPipeline, inputs: Inputs, exchange: Path | None, answers: list,
    listening: list | None, clock: _Clock,
) -> dict:
    first, previous = answers[0][0], inputs.previous
    given = {"audio": previous.audio is not None, "motion": previous.motion is not None,
             "text": bool((previous.text or "").strip() or previous.words)}  # fmt: skip
    generated_s = first.duration_s * len(settings.guidance_scale) * settings.num_samples
    return {
        "settings": settings.to_dict(),
        "resolved": {
            "exchange": exchange.name if exchange else None,
            "context": [name for name, there in given.items() if there],
            "context_gap": None if previous.is_empty else previous.gap_s,
            "steps": settings.steps or pipeline.config.num_inference_steps,
            "scheduler": type(pipeline.scheduler).__name__,
            "device": str(pipeline.device),
            "model_commit": pipeline.commit,
            "knob": describe_knob(pipeline.knob, settings.guidance_scale) if pipeline.knob else None,
            "retargeted_from": pipeline.layout.basis if first.layout.basis != pipeline.layout.basis else None,
        },
        "seed": settings.seed,
        "motion": {"basis": first.layout.basis, "fps": first.fps, "num_frames": len(first),
                   "seconds": first.duration_s,
                   "listening_start_s": -len(listening[0][0]) / first.fps if listening else None},
        "files": settings.files,
        "versions": _versions(),
        "seconds": clock.stages(),
        "real_time_factor": round(clock.seconds["sample"] / generated_s, 4),
    }  # fmt: skip


def _versions() -> dict[str, str]:
    found = {"diffdyad": diffdyad.__version__, "python": platform.python_version()}
    for name in _VERSIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found


def _earlier_files(out: Path) -> list[str]:
    """Names of our files that an earlier run says it left in `out`; they are replaced."""
    try:
        names = json.loads((out / "sample.json").read_text(encoding="utf-8"))["files"]
        return [name for name in names if isinstance(name, str) and _OWN_FILES.fullmatch(name)]
    except (OSError, ValueError, KeyError, TypeError):
        return []


class _Clock:
    """Seconds per stage: `with clock("sample"): ...`"""

    def __init__(self):
        self.began = time.perf_counter()
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[stage] = time.perf_counter() - start

    def stages(self) -> dict[str, float]:
        return {name: round(s, 3) for name, s in (*self.seconds.items(), ("total", time.perf_counter() - self.began))}


@contextmanager
def _bar(label: str, unit: str) -> Iterator:
    """A progress bar with the time left, where stderr is a terminal: update(done, total)."""
    from tqdm import tqdm

    with tqdm(desc=label, unit=unit, disable=not sys.stderr.isatty(), leave=False) as bar:

        def update(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield update


def _note(text: str) -> None:
    print(f"note: {text}", file=sys.stderr)


def _one_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:300]
