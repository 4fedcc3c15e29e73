"""From two voices to the answerer's motion: windows, given first frames, guidance, sampling.

Shapes: S samples of audio, T frames, D channels, K samples of motion.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import DiffusionPipeline, SchedulerMixin
from diffusers.utils import BaseOutput
from torch import Tensor

from diffdyad import hub, schedulers
from diffdyad.audio import SpeechEncoder
from diffdyad.conditioning import Conditions, style_features
from diffdyad.context import Context, ContextEncoder, PreviousTurn, TurnFeatures, collate
from diffdyad.denoiser import EncodedConditions, MotionDenoiser
from diffdyad.errors import UserError
from diffdyad.guidance import ArticulationGuard, Guidance, LipsOfSpeech, aperture_basis, presence
from diffdyad.knob import read_knob
from diffdyad.motion import Motion, MotionLayout, MotionStats
from diffdyad.timeline import Timeline
from diffdyad.traces import quiet_diffusers, without_origin
from diffdyad.windows import Window, join, windows

STARTS = ("none", "neutral", "smile", "listen")

_OF_FEELINGS = ("mouthSmile", "mouthFrown", "mouthDimple", "cheek", "nose")
"""What lips that shut leave alone: a reaction shows there, too, and speech alone does not know it."""

_SMILE = {"mouthSmileLeft": 0.5, "mouthSmileRight": 0.5, "cheekSquintLeft": 0.25, "cheekSquintRight": 0.25,
          "mouthDimpleLeft": 0.1, "mouthDimpleRight": 0.1}  # fmt: skip


@dataclass
class DyadOutput(BaseOutput):
    """motions: K answers, each (T, D) from t = 0; listening: with `start="listen"`, the K phases before."""

    motions: list[Motion]
    listening: list[Motion] | None = None


@dataclass(frozen=True)
class Plan:
    """What all windows of one answer share.

    noise: (K, T, D); context: the previous turn; others: the turns that take the place of "no context";
    style: (3 D,) or None.
    """

    timeline: Timeline
    noise: Tensor
    context: Context | None
    others: list[Context]
    style: Tensor | None
    num_inference_steps: int
    generator: torch.Generator | None


class DyadPipeline(DiffusionPipeline):
    """Generates the responder's motion from the responder's speech and the previous speaker's turn.

    Components: denoiser, scheduler, statistics, speech_encoder, context_encoder. `window_s`, `prefix_s`
    and `margin_s` say how long answers are put together; `num_inference_steps` is the default. The part of
    the guidance beyond scale 1 counts in full until `guidance_whole_s` after the previous turn's end, and not
    at all after `guidance_gone_s`: training has hardly seen later answers, and what is exaggerated there is
    drift, not reaction. Where speech makes one expect lips that are nearly shut, they are as expected, whatever the
    noise says: in full at an expected opening of 0, less the wider, not at all from `closing_mm` on (0: never).
    Where it makes one expect lips that are apart, they are so by at least the share `parting` of how wide they open
    (0: never).
    """

    def __init__(
        self,
        denoiser: MotionDenoiser,
        scheduler: SchedulerMixin,
        statistics: MotionStats,
        speech_encoder: SpeechEncoder,
        context_encoder: ContextEncoder,
        window_s: float = 5.04,
        prefix_s: float = 0.8,
        margin_s: float = 0.4,
        num_inference_steps: int = 12,
        guidance_whole_s: float = 6.0,
        guidance_gone_s: float = 12.0,
        closing_mm: float = 4.0,
        parting: float = 0.2,
    ):
        super().__init__()
        self.commit: str | None = None
        self.knob: dict | None = None
        self.register_modules(
            denoiser=denoiser, scheduler=scheduler, statistics=statistics, speech_encoder=speech_encoder,
            context_encoder=context_encoder,
        )
        self.register_to_config(
            window_s=window_s, prefix_s=prefix_s, margin_s=margin_s, num_inference_steps=num_inference_steps,
            guidance_whole_s=guidance_whole_s, guidance_gone_s=guidance_gone_s, closing_mm=closing_mm,
            parting=parting,
        )
        self._check()

    def _check(self) -> None:
        """Parts that do not belong together are an error here, rather than violent or frozen motion later."""
        stats, config = self.statistics, self.denoiser.config
        if stats.layout.dim != config.motion_dim or stats.config.fps != config.fps:
            raise UserError(
                f"the checkpoint's parts disagree: its network has {config.motion_dim} channels at {config.fps} fps, "
                f"its statistics {stats.layout.dim} ({stats.layout.basis}) at {stats.config.fps} fps"
            )
        if stats.mean.shape != (stats.layout.dim,) or not (stats.std > 0).all() or not stats.mean.isfinite().all():
            raise UserError("the checkpoint's motion statistics are damaged: expected finite means and deviations > 0")
        if self.speech_encoder.config.fps != config.fps:
            raise UserError(
                f"the checkpoint's parts disagree: its network runs at {config.fps} fps, its speech encoder at "
                f"{self.speech_encoder.config.fps} fps"
            )
        widths = dict(self.context_encoder.config.widths or {})
        if widths != dict(config.context_widths or {}):
            raise UserError(
                "the checkpoint's parts disagree on the context: its network takes "
                f"{dict(config.context_widths or {})}, its context encoder gives {widths}"
            )

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs) -> DyadPipeline:
        """Loads a folder, or a repository of the Hub: USER/REPO or USER/REPO@REVISION (or `revision=`; `token=`,
        `cache_dir=`, `local_files_only=`), whose commit is `pipeline.commit`.

        A repository is fetched first and loaded as a folder: Diffusers refuses components that are
        given by module path in a repository. Weights are read as safetensors only.

        Raises UserError, one line, where a repository cannot be fetched.
        """
        path = Path(pretrained_model_name_or_path)
        remote = not path.is_dir()
        if remote:
            options = {k: kwargs.pop(k) for k in ("revision", "token", "cache_dir", "local_files_only") if k in kwargs}
            path = hub.fetch(str(pretrained_model_name_or_path), **options)
        kwargs.setdefault("dtype", torch.float32)
        with quiet_diffusers():
            pipeline = super().from_pretrained(path, use_safetensors=True, **kwargs)
        # weights mapped from a file lie where it has them, and kernels may round by alignment: copied, they do not
        for tensor in (*pipeline.denoiser.parameters(), *pipeline.denoiser.buffers()):
            tensor.data = tensor.data.clone()
        # who names a repository has asked for the network: encoders it refers to may come from there too
        pipeline.speech_encoder.allow_download = pipeline.context_encoder.allow_download = remote
        pipeline.commit = path.name if remote else None
        pipeline.knob = read_knob(path)
        return pipeline

    def save_pretrained(self, save_directory: str | os.PathLike, *args, push_to_hub: bool = False, **kwargs) -> None:
        """As Diffusers', but that the files do not tell from which folder of which machine the parts once came."""
        about = ("repo_id", "commit_message", "private", "create_pr", "token")
        options = {k: kwargs.pop(k) for k in about if k in kwargs}
        super().save_pretrained(save_directory, *args, **kwargs)
        folder = Path(save_directory)
        configs = [file for name in self.components for file in (folder / name).glob("*.json")]
        for path in (folder / hub.INDEX, *configs):
            path.write_bytes(without_origin(path.read_bytes()))
        if push_to_hub:
            self.push_to_hub(options.pop("repo_id", folder.name), **options)

    @property
    def layout(self) -> MotionLayout:
        return self.statistics.layout

    @property
    def fps(self) -> float:
        return self.denoiser.config.fps

    @torch.no_grad()
    def __call__(
        self,
        audio: Tensor,
        context: PreviousTurn | Context | None = None,
        guidance_scale: float = 1.0,
        audio_guidance_scale: float = 1.0,
        start: str | Motion = "none",
        style: Motion | None = None,
        num_inference_steps: int | None = None,
        num_samples: int = 1,
        generator: torch.Generator | None = None,
        protect_articulation: bool = True,
        guidance_interval: tuple[float, float] = (0.0, 1.0),
        negative_context: Sequence[PreviousTurn | Context] = (),
        sampling_rate: int = 16000,
        progress: Callable[[int, int], None] | None = None,
    ) -> DyadOutput:
        """Generates K = num_samples answers to one previous turn.

        audio: (S,) the responder's speech, mono; context: the previous turn, or None; guidance_scale: how
        strongly the context alters the motion (0: as if there were none, 1: the model as trained);
        guidance_interval: noise levels, 0 = clean to 1 = pure noise, between which scales beyond 1 apply;
        start: one of STARTS, or a clip whose last frames come first; style: another clip of the responder;
        protect_articulation: keep guidance beyond 1 off the opening of the lips while the responder speaks;
        negative_context: other turns, matched in length and gap: the mean over them takes the place of "no
        context", which leaves of the guidance what this turn does and no other would;
        progress: called with (frames done, frames in all).

        Raises UserError for inputs that the model cannot take.
        """
        scales = {"guidance_scale": guidance_scale, "audio_guidance_scale": audio_guidance_scale}
        for name, value in scales.items():
            if not torch.isfinite(torch.tensor(float(value))):
                raise UserError(f"expected a finite {name}, found {value}")
        if num_samples < 1:
            raise UserError(f"expected at least 1 sample, found {num_samples}")
        expected_rate = self.speech_encoder.config.sampling_rate
        if sampling_rate != expected_rate:
            raise UserError(f"expected audio at {expected_rate} Hz, found {sampling_rate} Hz; resample it first")
        audio = torch.as_tensor(audio).float().cpu()
        if audio.ndim != 1 or not audio.numel() or not audio.isfinite().all():
            raise UserError(f"expected finite mono audio of shape (samples,), found shape {tuple(audio.shape)}")
        if isinstance(context, PreviousTurn):
            context = None if context.is_empty else self.encode_context(context)
        others = [turn if isinstance(turn, Context) else self.encode_context(turn) for turn in negative_context]
        lead = self._lead(start, context)
        timeline = Timeline(self.speech_encoder, audio, len(lead))
        lips = self._lip_directions() if protect_articulation else None
        scales = Guidance(guidance_scale, audio_guidance_scale, context is not None, guidance_interval)
        noise = torch.randn(
            (num_samples, timeline.num_frames, self.layout.dim), generator=generator,
            device=generator.device if generator is not None else "cpu",
        ).cpu()
        plan = Plan(
            timeline, noise, context, others, self._style(style),
            num_inference_steps or self.config.num_inference_steps, generator,
        )
        motion = torch.zeros(num_samples, timeline.num_frames, self.layout.dim)
        given = 0 if start == "listen" else len(lead)
        motion[:, :given] = self.statistics.standardise(lead[:given].to(self.statistics.mean.device)).cpu()
        self._fill(plan, scales, lips, motion, given, progress)
        values = self.statistics.restore(motion.to(self.statistics.mean.device)).cpu()
        return self._output(values, len(lead), keep_lead=start == "listen")

    def encode_context(self, turn: PreviousTurn, where: str = "the context") -> Context:
        """The previous turn as the network takes it; do it once where a turn is used several times."""
        return self.context_encoder(turn, self.speech_encoder, self.statistics, where)

    # ------------------------------------------------------------------------------------ preparation

    def _lead(self, start: str | Motion, context: Context | None) -> Tensor:
        """Raw motion of the frames before t = 0, (P, D); for `listen` blank frames to be generated."""
        layout = self.layout
        if isinstance(start, Motion):
            self.statistics.check(start, "the start motion")
            if not start.valid.all():
                raise UserError("expected a start motion with all its channel groups valid")
            return start.resample(self.fps).values[-round(self.config.prefix_s * self.fps) :]
        if start == "none":
            return torch.zeros(0, layout.dim)
        if start == "listen":
            if context is None:
                raise UserError("start 'listen' needs a previous turn to listen to; give a context")
            if context.times_s.shape[1] == 0:
                raise UserError("start 'listen' needs a previous turn with a duration; give its audio or motion")
            begin_s = float(context.times_s.min()) - 0.5 / self.context_encoder.config.rate_hz
            return torch.zeros(max(2, round(-begin_s * self.fps)), layout.dim)
        if start not in STARTS:
            raise UserError(f"expected a start among {', '.join(STARTS)} or a motion, found {start!r}")
        pose = torch.zeros(layout.dim)
        if start == "smile":
            if layout.expression_names is None:
                raise UserError(f"start 'smile' needs a basis with named expressions, found {layout.basis}; "
                                "give a motion file instead")
            for name, value in _SMILE.items():
                pose[layout.channel(name)] = value
        return pose.expand(round(0.4 * self.fps), -1)

    def _style(self, style: Motion | None) -> Tensor | None:
        if style is None:
            return None
        self.statistics.check(style, "the style motion")
        return style_features(self.statistics.standardise(style.resample(self.fps).values))

    def _lip_directions(self, without: Sequence[str] = ()) -> Tensor | None:
        """Directions of standardised motion that open the lips, (R, D), where the checkpoint knows them.

        without: beginnings of the names of expressions that these directions leave alone.
        """
        jacobian = self.statistics.aperture_jacobian.clone()
        for channel, name in enumerate(self.layout.expression_names or ()):
            if name.startswith(tuple(without)):
                jacobian[:, channel] = 0
        return aperture_basis(jacobian, self.statistics.std) if jacobian.any() else None

    # --------------------------------------------------------------------------------------- sampling

    def _fill(
        self, plan: Plan, scales: Guidance, lips: Tensor | None, motion: Tensor, given: int,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        """Makes the frames of `motion`, (K, T, D), after the first `given` ones, window by window.

        Beyond scale 1 the answer at scale 1 is made beside it, from the same noise: it has the last word on the lips.
        """
        timeline, generator = plan.timeline, plan.generator
        length, prefix, margin = (
            2 * round(seconds * self.fps / 2)
            for seconds in (self.config.window_s, self.config.prefix_s, self.config.margin_s)
        )
        spoken = motion.clone() if lips is not None and scales.exaggerates else None
        for window in windows(timeline.num_frames, length, prefix, margin, given):
            span, guard = slice(window.start, window.start + window.length), None
            if spoken is not None:
                state = None if generator is None else generator.get_state()
                spoken[:, span] = self._sample_window(plan, window, spoken, scales.at_scale_one())
                if state is not None:
                    generator.set_state(state)
                frames = spoken[:, span]
                speaking = timeline.speaking(window.start, frames.shape[1])[:, None]
                guard = ArticulationGuard(lips, speaking, frames)
            motion[:, span] = self._sample_window(plan, window, motion, scales, guard)
            if progress is not None:
                progress(window.stop, timeline.num_frames)

    def _sample_window(
        self, plan: Plan, window: Window, motion: Tensor, scales: Guidance, guard: ArticulationGuard | None = None
    ) -> Tensor:
        """The window's frames, (K, length, D), given ones as they were; fewer at the end of the timeline."""
        device = self._execution_device
        timeline, context = plan.timeline, plan.context
        num_samples, span = len(motion), slice(window.start, window.start + window.length)
        missing = max(window.start + window.length - motion.shape[1], 0)
        given, sample = (F.pad(x[:, span], (0, 0, 0, missing)).to(device) for x in (motion, plan.noise))
        prefix_mask = torch.arange(window.length, device=device)[None] < window.prefix
        turns = self._turns(scales, context, plan.others)
        rows = num_samples * sum(map(len, turns.values()))
        encoded = self.denoiser.encode(self._conditions(timeline, window, turns, plan.style, num_samples))
        if guard is not None:
            guard = guard.to(device, window.length)

        by_speech = self._lips_of_speech(encoded, turns, num_samples, window, timeline)
        there = None
        if context is not None:
            seconds = (torch.arange(window.start, window.start + window.length) - timeline.num_lead) / self.fps
            there = presence(
                seconds - context.end_s[0].cpu(), self.config.guidance_whole_s, self.config.guidance_gone_s
            )
            there = there[:, None].to(device)

        schedulers.set_timesteps(self.scheduler, plan.num_inference_steps, device)
        for timestep in self.scheduler.timesteps:
            sample = torch.where(prefix_mask[..., None], given, sample)
            told = schedulers.network_timestep(self.scheduler, timestep).expand(rows)
            predicted = self.denoiser(
                sample.repeat(rows // num_samples, 1, 1), told, encoded, prefix_mask.expand(rows, -1)
            )
            blocks = predicted.split([num_samples * len(group) for group in turns.values()])
            outputs = {
                name: block if len(block) == num_samples else block.unflatten(0, (-1, num_samples)).mean(0)
                for name, block in zip(turns, blocks, strict=True)
            }
            clean = scales.combine(outputs, schedulers.noise_level(self.scheduler, timestep), guard, there)
            clean = clean if by_speech is None else by_speech.hold(clean)
            sample = schedulers.step(self.scheduler, clean, timestep, sample, plan.generator)
        sample = join(given, sample if by_speech is None else by_speech.hold(sample), window.prefix)
        if guard is not None:
            sample = torch.cat([given[:, : window.prefix], guard.hold(sample)[:, window.prefix :]], 1)
        return sample[:, : window.length - missing].float().cpu()

    def _lips_of_speech(
        self, encoded: EncodedConditions, turns: dict[str, list[Context]], num_samples: int, window: Window,
        timeline: Timeline,
    ) -> LipsOfSpeech | None:
        """What this window's speech does with the lips; None where it is not heard, or the lips are not known."""
        closing_mm, parting = self.config.closing_mm, self.config.parting
        basis = self._lip_directions(_OF_FEELINGS) if closing_mm > 0 or parting > 0 else None
        if basis is None or list(turns)[-1] == "none":
            return None
        expected = encoded.speech.forecast[-num_samples:].float()
        answers = torch.arange(window.start, window.start + window.length, device=expected.device) >= timeline.num_lead
        slope, rest_mm = self.statistics.lip_opening_line()
        basis, slope = basis.to(expected.device), slope.to(expected.device)
        voiced = timeline.speaking(window.start, window.length, hold_s=0.0).to(expected.device)
        return LipsOfSpeech.of(basis, expected, slope, rest_mm, closing_mm, parting, answers.float(), voiced)

    def _turns(self, scales: Guidance, context: Context | None, others: list[Context]) -> dict[str, list[Context]]:
        """The previous turns that each branch is evaluated with."""
        nothing = self.context_encoder.place(TurnFeatures(), end_s=0.0)
        given = {"none": [nothing], "audio": others or [nothing], "full": [context]}
        return {name: given[name] for name in scales.branches}

    def _conditions(
        self, timeline: Timeline, window: Window, turns: dict[str, list[Context]], style: Tensor | None,
        num_samples: int,
    ) -> Conditions:
        """A block of K rows per turn, branch after branch."""
        device = self._execution_device
        flat = [(name, turn) for name, group in turns.items() for turn in group]
        rows = len(flat) * num_samples
        features, heard = timeline.speech(window.start, window.length)
        start_s = (window.start - timeline.num_lead) / self.fps
        speech_given = torch.tensor([name != "none" for name, _ in flat]).repeat_interleave(num_samples)
        turn = collate([turn for _, turn in flat]).repeat(num_samples)
        blank = torch.zeros(3 * self.layout.dim)
        return Conditions(
            speech=features.to(device).expand(rows, -1, -1, -1),
            heard=heard.to(device).expand(rows, -1),
            speech_given=speech_given.to(device),
            context=turn.to(device),
            style=(blank if style is None else style).to(device).expand(rows, -1),
            style_given=torch.full((rows,), style is not None, device=device),
            source=torch.zeros(rows, dtype=torch.long, device=device),
            start_s=torch.full((rows,), start_s, device=device),
            horizon_s=None,
        )

    def _output(self, values: Tensor, num_lead: int, keep_lead: bool) -> DyadOutput:
        if self.layout.basis == "arkit":
            expression = self.layout.slices["expression"]
            values[..., expression] = values[..., expression].clamp(0, 1)
        make = lambda frames: Motion(frames.clone(), self.layout, self.fps)  # noqa: E731
        return DyadOutput(
            motions=[make(sample[num_lead:]) for sample in values],
            listening=[make(sample[:num_lead]) for sample in values] if keep_lead else None,
        )
