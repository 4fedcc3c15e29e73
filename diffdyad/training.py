"""Training under Accelerate: validate, build, loop. To resume, run the same command again.

Every step depends on (seed, step) alone, and on the weights: so a run that was killed goes on from its last
checkpoint to the same end, and any number of processes computes the same losses.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, LoggerType, broadcast_object_list, gather_object
from diffusers.training_utils import EMAModel
from torch import Tensor
from tqdm.auto import tqdm

from diffdyad import card, checkpoints, learning, parts, schedulers, state
from diffdyad.config import RunConfig, as_yaml, save_config
from diffdyad.data.batches import Batch
from diffdyad.data.loader import Loader, StepBatches
from diffdyad.denoiser import MotionDenoiser
from diffdyad.errors import UserError
from diffdyad.journal import Journal
from diffdyad.lock import only_one
from diffdyad.objective import LossSums, count_valid, motion_losses
from diffdyad.parts import Parts, Saved, Surroundings
from diffdyad.pipeline import DyadPipeline
from diffdyad.staging import cleared
from diffdyad.validation import Answers, validate
from diffdyad.watch import SpikeWatch

_PATIENCE = timedelta(hours=12)  # of the other processes, while the main one makes a corpus and features
_MOST_OVERFLOWS = 50  # steps on end that fp16 may skip until its scale fits


def train(config: RunConfig) -> Path:
    """Runs a config to its end and returns the folder of the trained pipeline.

    Raises UserError for what the config, the data or the checkpoints get wrong.
    """
    parts.check_folders(config)
    accelerator = _accelerator(config)
    output = Path(config.output)
    if not accelerator.is_main_process:
        accelerator.wait_for_everyone()  # for the folder, and the dataset
        return _train(config, accelerator, output)
    output.mkdir(parents=True, exist_ok=True)
    with only_one(output):
        save_config(config, output / "config.yaml")
        parts.make_dataset(config)
        accelerator.wait_for_everyone()
        return _train(config, accelerator, output)


def _train(config: RunConfig, accelerator: Accelerator, output: Path) -> Path:
    warn = _warning(accelerator)
    checkpoint = checkpoints.newest(output / "checkpoints", warn)
    saved = None
    if checkpoint is not None:
        about = checkpoint.state
        saved = Saved(
            checkpoint.folder, checkpoint.step, about.get("sources", ()), about.get("nature"),
            checkpoint.tensors("statistics"),
        )  # fmt: skip
    around = Surroundings(accelerator.device, accelerator.is_main_process, accelerator.main_process_first, warn)
    built = parts.build(config, around, saved)
    if built.num_exchanges < accelerator.num_processes:
        raise UserError(
            f"expected at least one exchange for each of {accelerator.num_processes} processes, found "
            f"{built.num_exchanges}; use fewer processes, or more data"
        )
    run = _Run(config, accelerator, built, output)
    try:
        if checkpoint is not None:
            run.resume(checkpoint)
        run.loop()
        return run.finish()
    finally:
        built.train.close()


def _accelerator(config: RunConfig) -> Accelerator:
    tracker = config.training.tracker
    if tracker is not None and tracker not in LoggerType.list():
        names = ", ".join(str(name) for name in LoggerType.list())
        raise UserError(f"training.tracker: expected one of {names}, found {tracker!r}")
    try:
        return Accelerator(
            mixed_precision=config.training.mixed_precision, log_with=tracker, project_dir=config.output,
            kwargs_handlers=[InitProcessGroupKwargs(timeout=_PATIENCE)],
        )  # fmt: skip
    except ValueError as error:
        if config.training.mixed_precision not in str(error):
            raise
        raise UserError(f"training.mixed_precision: {str(error).splitlines()[0]}") from None


def _warning(accelerator: Accelerator):
    def warn(message: str) -> None:
        if accelerator.is_main_process:
            tqdm.write(f"diffdyad: {' '.join(message.split())}", file=sys.stderr)

    return warn


class _Run:
    """The loop and what it keeps."""

    def __init__(self, config: RunConfig, accelerator: Accelerator, built: Parts, output: Path):
        self.config, self.accelerator, self.parts, self.output = config, accelerator, built, output
        training = config.training
        share = accelerator.num_processes * training.accumulation_steps
        if training.batch_size % share:
            raise UserError(
                f"training.batch_size {training.batch_size} must be a multiple of processes x accumulation_steps = "
                f"{share}"
            )
        self.warn = _warning(accelerator)
        self.batches = StepBatches(
            built.train, training.seed, config.data.window_s, built.stats.config.fps, training.batch_size // share,
            training.accumulation_steps, accelerator.num_processes, accelerator.process_index,
        )  # fmt: skip
        self.noise = schedulers.training_scheduler(
            config.noise.kind, config.noise.num_train_timesteps, config.noise.beta_schedule, config.noise.flow_shift
        )
        self.weights = {"motion": 1.0, **config.loss.model_dump()}
        self.stats = built.stats
        if accelerator.device.type != "cpu":
            self.stats = copy.deepcopy(built.stats).to(accelerator.device)
        if training.compile:
            built.denoiser.compile(dynamic=True)  # windows have many lengths
        optimizer = torch.optim.AdamW(
            learning.parameter_groups(built.denoiser, training), lr=training.learning_rate, betas=(0.9, 0.99)
        )
        self.model, self.optimizer = accelerator.prepare(built.denoiser, optimizer)
        self.ema = EMAModel(self.bare().parameters(), decay=training.ema_decay, use_ema_warmup=True, power=0.75)
        self.ema.to(accelerator.device)
        self.step = self.began = 0
        self.overflows = 0
        self.spikes = SpikeWatch(training.spike_factor, training.spike_steps)
        self.spiked: list[str] = []
        self.unproven = False  # the newest checkpoint's weights have not had a loss yet
        self.journal = Journal(output / "log.jsonl", accelerator, self.warn)
        self.answers = Answers(config.data, accelerator.device)

    def bare(self) -> MotionDenoiser:
        return self.accelerator.unwrap_model(self.model)

    # ------------------------------------------------------------------------------------------- steps

    def loss_sums(self, batch: Batch, model=None, timestep_shift: float = 1.0) -> LossSums:
        """Forward pass (in mixed precision) and losses (in float32: they are of millimetres) of one micro-batch."""
        device = self.accelerator.device
        conditions = batch.conditions.to(device)
        target, prefix, noise = batch.target.to(device), batch.prefix.to(device), batch.noise.to(device)
        share = learning.shifted(batch.uniform.to(device), timestep_shift)
        count = self.config.noise.num_train_timesteps
        timesteps = (share * count).long().clamp_max(count - 1)  # a share may round to 1
        noisy = schedulers.add_noise(self.noise, target, noise, timesteps)
        given = target + batch.prefix_noise.to(device) * noise
        noisy = torch.where(prefix[..., None], given, noisy)
        predicted = (model or self.model)(noisy, timesteps, conditions, prefix, return_forecasts=True)
        return motion_losses(
            predicted.motion, target, batch.valid.to(device), self.stats, self.parts.vertex_loss,
            predicted.context_forecast, predicted.speech_forecast,
        )

    def train_step(self, batches: list[Batch]) -> dict[str, float]:
        training = self.config.training
        for group in self.optimizer.param_groups:
            group["lr"] = training.learning_rate * learning.schedule(training, self.step) * group["rate"]
        counts = self._global_counts(batches)
        means: dict[str, Tensor] = {}
        for number, batch in enumerate(batches):
            last = number == len(batches) - 1
            with nullcontext() if last else self.accelerator.no_sync(self.model):
                sums = self.loss_sums(batch, timestep_shift=self.config.noise.timestep_shift)
                # DDP averages gradients over processes; the counts are already those of all of them
                loss = sums.total(self.weights, counts) * self.accelerator.num_processes
                self.accelerator.backward(loss)
            for name, value in sums.sums.items():
                means[name] = means.get(name, 0.0) + value.detach() / counts[name].clamp_min(1)
        norm = float(self.accelerator.clip_grad_norm_(self.model.parameters(), training.max_grad_norm))
        values = {name: self.accelerator.reduce(value, "sum").item() for name, value in means.items()}
        values["loss"] = sum(self.weights[name] * value for name, value in values.items())
        self._judge(values["loss"], norm, batches)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.overflows = self.overflows + 1 if self.optimizer.step_was_skipped else 0
        if not self.overflows:
            self.ema.step(self.bare().parameters())
        return {**values, "grad_norm": norm}

    def _judge(self, loss: float, norm: float, batches: list[Batch]) -> None:
        """Stops a run that does not learn any more, before its weights are touched."""
        finite = torch.isfinite(torch.tensor([loss, norm])).tolist()
        # half precision finds its scale by overflowing: such a step is skipped
        overflowed = finite[0] and not finite[1] and self.accelerator.scaler is not None
        if not all(finite) and not (overflowed and self.overflows < _MOST_OVERFLOWS):
            ids = sorted({name for batch in batches for name in batch.ids})
            self._stop("the loss is not finite", ids, self.step - self.spikes.streak)
        stop = self.spikes.saw(loss)
        self.spiked = [*self.spiked, *(name for batch in batches for name in batch.ids)] if self.spikes.streak else []
        if stop:
            what = f"the loss was over {self.spikes.factor:g} times its median for {self.spikes.streak} steps"
            self._stop(what, sorted(set(self.spiked)), self.step - self.spikes.streak + 1)
        if self.unproven and not self.spikes.streak:
            self.unproven = False
            if self.accelerator.is_main_process:
                checkpoints.prune(self.output / "checkpoints", self.config.training.keep_checkpoints)

    def _stop(self, what: str, ids: list[str], bad_since: int) -> None:
        """Ends the run. bad_since: the step whose loss was the first bad one; a checkpoint of it holds bad weights."""
        if self.accelerator.num_processes > 1:
            ids = sorted(set(gather_object(ids)))
        whole = checkpoints.folders(self.output / "checkpoints")
        bad = [folder for folder in whole if folder.name >= f"step-{bad_since:08d}"]
        if self.accelerator.is_main_process and len(bad) < len(whole):
            for folder in bad:
                checkpoints.remove(folder)
        whole = [folder for folder in whole if folder not in bad] or whole
        kept = f"the last good checkpoint is kept: {whole[-1]}" if whole else "no checkpoint was written before"
        raise UserError(
            f"{what} at step {self.step}; {kept}; lower training.learning_rate, or look at the batch: "
            f"{', '.join(ids[:32])}{f' and {len(ids) - 32} more' if len(ids) > 32 else ''}"
        )

    def _global_counts(self, batches: list[Batch]) -> dict[str, Tensor]:
        """Valid entries of each term over all processes and accumulation steps, known before any forward pass."""
        sums: dict[str, Tensor] = {}
        for batch in batches:
            valid = batch.valid.to(self.accelerator.device)
            for name, value in count_valid(valid, self.stats.layout, self.parts.vertex_loss).items():
                sums[name] = sums.get(name, 0.0) + value
        return {name: self.accelerator.reduce(value, "sum") for name, value in sums.items()}

    def loop(self) -> None:
        training = self.config.training
        name = self.output.resolve().name
        self.journal.begin(self.step, training.tracker, name, self.config.model_dump(mode="json"))
        bar = tqdm(
            total=training.max_steps, initial=self.step, desc="training", unit="step",
            disable=not self.accelerator.is_main_process,
        )
        loader = Loader(self.batches, self.step, training.max_steps, self.config.data.loader_workers)
        self.model.train()
        began = time.perf_counter()
        with bar, loader:
            for batches in loader:
                values = self.train_step(batches)
                self.step += 1
                bar.update()
                if self.step % training.log_every == 0:
                    took, began = time.perf_counter() - began, time.perf_counter()
                    pace = {"waited_s": loader.waited_s, "step_s": took / training.log_every}
                    self.journal.write(self.step, {**values, **self._withheld(batches), **pace})
                    bar.set_postfix({k: f"{values[k]:.3g}" for k in ("loss", "aperture", "vertex") if k in values})
                done = self.step == training.max_steps
                if done or self.step % training.validate_every == 0:
                    self.journal.write(self.step, {f"validation/{k}": v for k, v in self.validate().items()})
                if training.sample_every and (done or self.step % training.sample_every == 0):
                    self.sample()
                # what a spike has touched is not kept: the checkpoint before it is the good one
                if done or (self.step % training.checkpoint_every == 0 and not self.spikes.streak):
                    self.save()
        self.journal.end()

    def _withheld(self, batches: list[Batch]) -> dict[str, float]:
        """Which share of the examples of a step, over all processes, had which condition dropped."""
        shares = {f"dropped/{name}": [batch.dropped[name] for batch in batches] for name in batches[0].dropped}
        shares["absent"] = [batch.absent for batch in batches]
        mean = torch.tensor([sum(values) / len(values) for values in shares.values()], device=self.accelerator.device)
        return dict(zip(shares, self.accelerator.reduce(mean, "mean").tolist()))

    # -------------------------------------------------------------------------------------- validation

    @contextmanager
    def averaged(self) -> Iterator[MotionDenoiser]:
        """The network with its averaged weights, for the time of a block."""
        model = self.bare()
        kept = [parameter.detach().clone() for parameter in model.parameters()]
        self.ema.copy_to(model.parameters())
        model.eval()
        try:
            yield model
        finally:
            with torch.no_grad():
                for parameter, value in zip(model.parameters(), kept, strict=True):
                    parameter.copy_(value)
            model.train()

    def validate(self) -> dict[str, float]:
        """Losses of the averaged weights on fixed windows, and figures of their answers to fixed exchanges."""
        with self.averaged() as model:
            found = validate(
                self.parts.validation, lambda batch: self.loss_sums(batch, model), self.stats.config.fps,
                self.config.training.seed, self.config.data.validation_windows,
            )  # fmt: skip
        if self.config.data.validation_answers:
            found |= self._beside("answers", self.answers.figures) or {}
        return found

    def sample(self) -> None:
        """A short answer of the averaged weights to a validation exchange, in OUTPUT/samples."""
        from diffdyad.preview import first_with_speech, preview

        folders, target = [source.path for source in self.config.data.sources], self.output / "samples"
        self._beside("sample", lambda model: preview(target, self.step, model, first_with_speech(folders)))

    def _beside(self, what: str, look: Callable[[DyadPipeline], Any]) -> Any:
        """What the main process finds in the averaged weights; None elsewhere, and where it fails: a warning."""
        pipeline = self.pipeline()  # by all processes, where weights are spread
        try:
            return look(pipeline) if self.accelerator.is_main_process else None
        except Exception as error:
            self.warn(f"no {what} at step {self.step}: {type(error).__name__}: {error}")

    # ------------------------------------------------------------------------------------ checkpoints

    def save(self) -> None:
        """Writes a checkpoint, whole or not at all. The oldest goes once the next loss shows that this one is good."""
        held = state.collect(self.bare(), self.ema, self.optimizer)  # by all processes, where weights are spread
        if self.accelerator.is_main_process:
            scaler = self.accelerator.scaler
            about = {
                "seed": self.config.training.seed,
                "nature": self.parts.nature,
                "sources": self.parts.sources,
                "ema_step": self.ema.optimization_step,
                "recent_losses": self.spikes.recent,
                "scaler": scaler.state_dict() if scaler is not None else None,
            }
            held["statistics"] = self.parts.statistics()
            checkpoints.write(self.output / "checkpoints", self.step, held, about)
            if self.step == self.config.training.max_steps:
                checkpoints.prune(self.output / "checkpoints", self.config.training.keep_checkpoints)
        self.unproven = True
        self.accelerator.wait_for_everyone()

    def resume(self, checkpoint: checkpoints.Checkpoint) -> None:
        """Goes on from a checkpoint."""
        state.restore(checkpoint, self.bare(), self.ema, self.optimizer)
        training = self.config.training
        self.step = self.began = checkpoint.step
        self.ema.optimization_step = checkpoint.state.get("ema_step", self.step)
        self.spikes = SpikeWatch(
            training.spike_factor, training.spike_steps, checkpoint.state.get("recent_losses") or ()
        )
        if self.accelerator.scaler is not None and checkpoint.state.get("scaler"):
            self.accelerator.scaler.load_state_dict(checkpoint.state["scaler"])

    def pipeline(self) -> DyadPipeline:
        """The averaged weights as a pipeline on the CPU: what is sampled from and pushed."""
        averaged = state.named(self.bare(), self.ema.shadow_params)
        with torch.random.fork_rng(devices=[]):  # its first weights are drawn, and thrown away
            denoiser = MotionDenoiser(**{k: v for k, v in self.bare().config.items() if not k.startswith("_")})
        denoiser.load_state_dict(averaged)
        scheduler = self.noise if self.config.noise.kind == "flow" else schedulers.sampler("dpmsolver++", self.noise)
        return DyadPipeline(
            denoiser=denoiser.eval(), scheduler=scheduler, statistics=self.parts.stats,
            speech_encoder=self.parts.speech, context_encoder=self.parts.context,
            num_inference_steps=self.config.noise.num_inference_steps,
        )  # fmt: skip

    def finish(self) -> Path:
        """Saves the averaged weights as a pipeline with its model card.

        One that is there stays where nothing was trained or changed: its card may have been edited since.
        """
        target = self.output / "pipeline"
        if self._is_finished(target):
            return target
        pipeline = self.pipeline()
        if self.accelerator.is_main_process:
            with cleared(target.with_name(".pipeline.partial")) as fresh:
                pipeline.save_pretrained(fresh, safe_serialization=True)
                save_config(self.config, fresh / card.SETTINGS)
                if self.parts.sources:
                    (fresh / parts.SOURCES).write_text(json.dumps(self.parts.sources) + "\n", encoding="utf-8")
                card.write_card(fresh, self.output)
                shutil.rmtree(target, ignore_errors=True)
                os.replace(fresh, target)
        self.accelerator.wait_for_everyone()
        return target

    def _is_finished(self, pipeline: Path) -> bool:
        """Whether an earlier run of the same config left this pipeline, as the main process sees it."""
        written = pipeline / card.SETTINGS
        same = self.step == self.began and written.is_file() and written.read_text("utf-8") == as_yaml(self.config)
        return broadcast_object_list([same])[0]
