"""Training under Accelerate: validate, build, loop. To resume, run the same command again.

Every step depends on (seed, step) alone, and on the weights: so a run that was killed goes on from its last
checkpoint to the same end, and any number of processes computes the same losses.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm.auto import tqdm

from diffdyad import schedulers
from diffdyad.audio import SpeechEncoder
from diffdyad.config import RunConfig, save_config
from diffdyad.context import ContextEncoder
from diffdyad.data import features
from diffdyad.data.batches import Batch, ExchangeWindows, keyed_generator
from diffdyad.denoiser import MotionDenoiser
from diffdyad.errors import UserError
from diffdyad.head import HeadModel
from diffdyad.motion import MotionStats
from diffdyad.objective import LossSums, VertexLoss, aperture_jacobian, count_valid, motion_losses
from diffdyad.pipeline import DyadPipeline

_VALIDATION_BATCH = 32


@dataclass
class Parts:
    """What a run is built from."""

    denoiser: MotionDenoiser
    stats: MotionStats
    speech: SpeechEncoder
    context: ContextEncoder
    train: ExchangeWindows
    validation: ExchangeWindows
    vertex_loss: VertexLoss | None


def train(config: RunConfig) -> Path:
    """Runs a config to its end and returns the folder of the trained pipeline.

    Raises UserError for what the config or the data get wrong.
    """
    dataset = Path(config.data.dataset)
    if config.data.rehearse is None and not any(dataset.glob("train-*.parquet")):
        raise UserError(f"expected a dataset of exchanges in {dataset}, found none; see `diffdyad data --help`")
    accelerator = Accelerator(mixed_precision=config.training.mixed_precision)
    output = Path(config.output)
    if accelerator.is_main_process:
        output.mkdir(parents=True, exist_ok=True)
        save_config(config, output / "config.yaml")
        _make_dataset(config)
    accelerator.wait_for_everyone()
    parts = _build(config, accelerator)
    run = _Run(config, accelerator, parts, output)
    run.resume()
    run.loop()
    return run.finish()


def _make_dataset(config: RunConfig) -> None:
    """Makes the rehearsal corpus, or goes on making it; a finished one is left as it is."""
    if config.data.rehearse is None:
        return
    from diffdyad.data.rehearsal.corpus import rehearse

    wanted = config.data.rehearse
    rehearse(config.data.dataset, hours=wanted.hours, seed=wanted.seed, effect=wanted.effect)


def _build(config: RunConfig, accelerator: Accelerator) -> Parts:
    dataset = Path(config.data.dataset)
    layout, fps = features.dataset_layout(dataset)
    speech = SpeechEncoder(config.speech.encoder, config.speech.revision, fps=fps, num_bands=config.speech.num_bands)
    wanted = config.context
    settings = {
        "modalities": list(wanted.modalities), "rate_hz": wanted.rate_hz, "longest_s": wanted.longest_s, "fps": fps,
        "text_encoder": wanted.text_encoder, "text_revision": wanted.text_revision,
        "affect_encoder": wanted.affect_encoder, "affect_revision": wanted.affect_revision,
    }  # fmt: skip
    context = ContextEncoder(**settings)
    cache = Path(config.data.cache or dataset / "features")
    splits = {}
    for split in ("train", "validation"):
        bar = tqdm(desc=f"features, {split}", unit="shard", disable=not accelerator.is_main_process)
        with accelerator.main_process_first(), bar:
            paths = features.build(dataset, split, cache, speech, context, layout, fps, progress=partial(_show, bar))
        splits[split] = features.load(paths)

    stats = _motion_statistics(splits["train"], MotionStats.for_layout(layout, fps))
    speech.fit(exchange.speech.float() for exchange in splits["train"])
    widths = _context_widths(context.modalities, splits["train"])
    context = ContextEncoder(**settings, widths=widths).fit(exchange.turn for exchange in splits["train"])
    head = HeadModel.clay() if layout.basis == "arkit" else None
    vertex_loss = None
    if head is not None:
        stats.aperture_jacobian.copy_(aperture_jacobian(head, layout, stats))
        vertex_loss = VertexLoss(head, layout).to(accelerator.device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.training.seed)  # the initial weights; put back on leaving
        denoiser = MotionDenoiser(
            motion_dim=layout.dim, fps=fps, speech_width=speech.num_channels, speech_layers=speech.num_layers,
            context_widths=widths, **config.model.model_dump(),
        )
    if config.training.start_from:
        first = DyadPipeline.from_pretrained(config.training.start_from)
        try:
            denoiser.load_state_dict(first.denoiser.state_dict())
        except RuntimeError as error:
            raise UserError(
                f"training.start_from {config.training.start_from} is of another layout than the config "
                f"({str(error).splitlines()[0]})"
            ) from None
        # what its weights were trained to read
        stats, speech, context = first.statistics, first.speech_encoder, first.context_encoder
    windows = {
        split: ExchangeWindows(items, speech, context, stats, config.conditions) for split, items in splits.items()
    }
    return Parts(denoiser, stats, speech, context, windows["train"], windows["validation"], vertex_loss)


def _show(bar: tqdm, done: int, count: int) -> None:
    bar.total = count
    bar.update(done - bar.n)


def _motion_statistics(exchanges: list[features.ExchangeFeatures], stats: MotionStats) -> MotionStats:
    """Mean and deviation over the valid entries of each channel."""
    count = total = squares = 0.0
    for exchange in exchanges:
        known = stats.layout.group_to_channels(exchange.valid).double()
        values = exchange.motion.double() * known
        count, total, squares = count + known.sum(0), total + values.sum(0), squares + (values * values).sum(0)
    count = torch.as_tensor(count).clamp_min(1)
    mean = total / count
    return stats.fit(mean, (squares / count - mean**2).clamp_min(0).sqrt())


def _context_widths(modalities: tuple[str, ...], exchanges: list[features.ExchangeFeatures]) -> dict[str, int]:
    widths = {}
    for exchange in exchanges:
        for name, cells in exchange.turn.features.items():
            widths.setdefault(name, cells.shape[-1])
        if len(widths) == len(modalities):
            break
    missing = [name for name in modalities if name not in widths]
    if missing:
        raise UserError(
            f"the config asks for the context modalities {', '.join(missing)}, which no exchange of the dataset has; "
            "take them out of context.modalities"
        )
    return {name: widths[name] for name in modalities}


class _Run:
    """The loop and what it keeps."""

    def __init__(self, config: RunConfig, accelerator: Accelerator, parts: Parts, output: Path):
        self.config, self.accelerator, self.parts, self.output = config, accelerator, parts, output
        training = config.training
        share = accelerator.num_processes * training.accumulation_steps
        if training.batch_size % share:
            raise UserError(
                f"training.batch_size {training.batch_size} must be a multiple of processes x accumulation_steps = "
                f"{share}"
            )
        self.micro_batch = training.batch_size // share
        self.noise = schedulers.training_scheduler(
            config.noise.kind, config.noise.num_train_timesteps, config.noise.beta_schedule, config.noise.flow_shift
        )
        self.weights = {"motion": 1.0, **config.loss.model_dump()}
        self.stats = parts.stats
        if accelerator.device.type != "cpu":
            import copy

            self.stats = copy.deepcopy(parts.stats).to(accelerator.device)
        self.model = accelerator.prepare(parts.denoiser)
        groups: dict[tuple[float, float], list] = {}
        for name, parameter in self.bare().named_parameters():
            rate = training.context_rate if "context" in name else training.other_rate
            decay = training.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
        self.optimizer = torch.optim.AdamW(
            [{"params": p, "weight_decay": decay, "rate": rate} for (rate, decay), p in groups.items()],
            lr=training.learning_rate, betas=(0.9, 0.99),
        )  # fmt: skip
        self.ema = EMAModel(self.bare().parameters(), decay=training.ema_decay, use_ema_warmup=True, power=0.75)
        self.ema.to(accelerator.device)
        self.step = 0

    def bare(self) -> MotionDenoiser:
        return self.accelerator.unwrap_model(self.model)

    # ------------------------------------------------------------------------------------------- steps

    def num_frames(self, step: int) -> int:
        """Even number of frames of a step's windows; all processes agree."""
        low, high = self.config.data.window_s
        drawn = torch.rand((), generator=keyed_generator(self.config.training.seed, "length", step)).item()
        return 2 * round((low + drawn * (high - low)) * self.stats.config.fps / 2)

    def batches(self, step: int) -> list[Batch]:
        """This process' micro-batches of one step."""
        training, rank = self.config.training, self.accelerator.process_index
        made = []
        for micro in range(training.accumulation_steps):
            first = (micro * self.accelerator.num_processes + rank) * self.micro_batch
            generators = [
                keyed_generator(training.seed, step, index) for index in range(first, first + self.micro_batch)
            ]
            made.append(self.parts.train.batch(generators, self.num_frames(step)))
        return made

    def loss_sums(self, batch: Batch, model=None) -> LossSums:
        """Forward pass (in mixed precision) and losses (in float32: they are of millimetres) of one micro-batch."""
        device = self.accelerator.device
        conditions = batch.conditions.to(device)
        target, prefix, noise = batch.target.to(device), batch.prefix.to(device), batch.noise.to(device)
        timesteps = (batch.uniform.to(device) * self.config.noise.num_train_timesteps).long()
        noisy = schedulers.add_noise(self.noise, target, noise, timesteps)
        given = target + batch.prefix_noise.to(device) * noise
        noisy = torch.where(prefix[..., None], given, noisy)
        predicted, forecast = (model or self.model)(noisy, timesteps, conditions, prefix, return_forecast=True)
        return motion_losses(
            predicted.float(), target, batch.valid.to(device), self.stats, self.parts.vertex_loss, forecast.float()
        )

    def train_step(self, batches: list[Batch]) -> dict[str, float]:
        training = self.config.training
        for group in self.optimizer.param_groups:
            group["lr"] = training.learning_rate * self.schedule(self.step) * group["rate"]
        counts = self._global_counts(batches)
        means: dict[str, Tensor] = {}
        for number, batch in enumerate(batches):
            last = number == len(batches) - 1
            with nullcontext() if last else self.accelerator.no_sync(self.model):
                sums = self.loss_sums(batch)
                # DDP averages gradients over processes; the counts are already those of all of them
                loss = sums.total(self.weights, counts) * self.accelerator.num_processes
                self.accelerator.backward(loss)
            for name, value in sums.sums.items():
                means[name] = means.get(name, 0.0) + value.detach() / counts[name].clamp_min(1)
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), training.max_grad_norm)
        values = {name: self.accelerator.reduce(value, "sum").item() for name, value in means.items()}
        values["loss"] = sum(self.weights[name] * value for name, value in values.items())
        if not torch.isfinite(torch.tensor(values["loss"])) or not torch.isfinite(norm):
            ids = sorted({name for batch in batches for name in batch.ids})
            raise UserError(
                f"the loss is not finite at step {self.step}; the last good checkpoint is kept in "
                f"{self.output}/checkpoints; the batch: {', '.join(ids[:8])}{', ...' if len(ids) > 8 else ''}"
            )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.ema.step(self.bare().parameters())
        return {**values, "grad_norm": float(norm)}

    def _global_counts(self, batches: list[Batch]) -> dict[str, Tensor]:
        """Valid entries of each term over all processes and accumulation steps, known before any forward pass."""
        sums: dict[str, Tensor] = {}
        for batch in batches:
            valid = batch.valid.to(self.accelerator.device)
            for name, value in count_valid(valid, self.stats.layout, self.parts.vertex_loss).items():
                sums[name] = sums.get(name, 0.0) + value
        return {name: self.accelerator.reduce(value, "sum") for name, value in sums.items()}

    def schedule(self, step: int) -> float:
        """Linear warm-up, then a cosine down to a twentieth."""
        training = self.config.training
        if step < training.warmup_steps:
            return (step + 1) / training.warmup_steps
        progress = (step - training.warmup_steps) / max(1, training.max_steps - training.warmup_steps)
        return 0.05 + 0.95 * 0.5 * (1 + torch.cos(torch.tensor(progress * torch.pi)).item())

    def loop(self) -> None:
        training = self.config.training
        bar = tqdm(
            total=training.max_steps, initial=self.step, desc="training", unit="step",
            disable=not self.accelerator.is_main_process,
        )
        self.model.train()
        # one thread for loading: a second team of threads beside the model's would double the step's time
        with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,)) as loader:
            upcoming: Future = loader.submit(self.batches, self.step)
            while self.step < training.max_steps:
                waited = time.perf_counter()
                batches = upcoming.result()
                waited = time.perf_counter() - waited
                upcoming = loader.submit(self.batches, self.step + 1)
                values = self.train_step(batches)
                self.step += 1
                bar.update()
                if self.step % training.log_every == 0:
                    shares = {f"dropped/{name}": share for name, share in batches[0].dropped.items()}
                    self._log({**values, **shares, "waited_s": waited})
                    bar.set_postfix({k: f"{values[k]:.3g}" for k in ("loss", "aperture", "vertex") if k in values})
                done = self.step == training.max_steps
                if done or self.step % training.validate_every == 0:
                    self._log({f"validation/{name}": value for name, value in self.validate().items()})
                if done or self.step % training.checkpoint_every == 0:
                    self.save()
        bar.close()

    def _log(self, values: dict[str, float]) -> None:
        if self.accelerator.is_main_process:
            with open(self.output / "log.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps({"step": self.step, "time": time.time(), **values}) + "\n")

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Losses of the averaged weights on fixed windows, noise and timesteps; without the context, too.

        `context_gap` is the rise of the motion loss when the context is withheld: what it is worth.
        """
        seed, model = self.config.training.seed, self.bare()
        self.ema.store(model.parameters())
        self.ema.copy_to(model.parameters())
        model.eval()
        totals: dict[str, float] = {}
        chunks = max(1, self.config.data.validation_windows // _VALIDATION_BATCH)
        for number in range(chunks):
            generators = [
                keyed_generator(seed, "validation", number * _VALIDATION_BATCH + i) for i in range(_VALIDATION_BATCH)
            ]
            batch = self.parts.validation.batch(generators, 2 * round(2.5 * self.stats.config.fps), withhold=False)
            given = self.loss_sums(batch, model)
            batch.conditions.context = batch.conditions.context.dropped()
            dropped = self.loss_sums(batch, model)
            for name, value in given.sums.items():
                totals[name] = totals.get(name, 0.0) + (value / given.counts[name]).item() / chunks
            gap = (dropped.sums["motion"] - given.sums["motion"]) / given.counts["motion"]
            totals["context_gap"] = totals.get("context_gap", 0.0) + gap.item() / chunks
        self.ema.restore(model.parameters())
        model.train()
        return totals

    # ------------------------------------------------------------------------------------ checkpoints

    @property
    def checkpoints(self) -> list[Path]:
        return sorted((self.output / "checkpoints").glob("step-????????"))

    def save(self) -> None:
        """Writes a checkpoint, whole or not at all, and removes the oldest."""
        if not self.accelerator.is_main_process:
            return
        target = self.output / "checkpoints" / f"step-{self.step:08d}"
        fresh = target.with_name(f".{target.name}.partial")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        try:
            weights = self.bare().state_dict()
            save_file({k: v.contiguous().cpu() for k, v in weights.items()}, fresh / "model.safetensors")
            names = [name for name, _ in self.bare().named_parameters()]
            averaged = dict(zip(names, self.ema.shadow_params, strict=True))
            save_file({k: v.contiguous().cpu() for k, v in averaged.items()}, fresh / "ema.safetensors")
            torch.save(self.optimizer.state_dict(), fresh / "optimizer.pt")
            (fresh / "state.json").write_text(json.dumps({"step": self.step}))
            if target.exists():
                shutil.rmtree(target)
            os.replace(fresh, target)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        for old in self.checkpoints[: -self.config.training.keep_checkpoints]:
            shutil.rmtree(old, ignore_errors=True)

    def resume(self) -> None:
        """Goes on from the last checkpoint, where there is one."""
        found = self.checkpoints
        if not found:
            return
        folder = found[-1]
        try:
            self.bare().load_state_dict(load_file(folder / "model.safetensors"))
        except RuntimeError as error:
            raise UserError(
                f"the checkpoint {folder} is of another layout than the config ({str(error).splitlines()[0]}); choose "
                "another output folder"
            ) from None
        averaged = load_file(folder / "ema.safetensors")
        for (name, _), shadow in zip(self.bare().named_parameters(), self.ema.shadow_params, strict=True):
            shadow.copy_(averaged[name])
        self.optimizer.load_state_dict(torch.load(folder / "optimizer.pt", weights_only=True))
        self.step = json.loads((folder / "state.json").read_text())["step"]
        self.ema.optimization_step = self.step

    def finish(self) -> Path:
        """Saves the averaged weights as a pipeline: what is sampled from and pushed."""
        target = self.output / "pipeline"
        if self.accelerator.is_main_process:
            model = self.bare()
            self.ema.copy_to(model.parameters())
            pipeline = DyadPipeline(
                denoiser=model.cpu().eval(), scheduler=self.sampling_scheduler(), statistics=self.parts.stats,
                speech_encoder=self.parts.speech, context_encoder=self.parts.context,
                num_inference_steps=self.config.noise.num_inference_steps,
            )
            fresh = target.with_name(".pipeline.partial")
            shutil.rmtree(fresh, ignore_errors=True)
            pipeline.save_pretrained(fresh, safe_serialization=True)
            save_config(self.config, fresh / "training.yaml")
            shutil.rmtree(target, ignore_errors=True)
            os.replace(fresh, target)
        self.accelerator.wait_for_everyone()
        return target

    def sampling_scheduler(self):
        if self.config.noise.kind == "flow":
            return self.noise
        return schedulers.sampler("dpmsolver++", self.noise)
