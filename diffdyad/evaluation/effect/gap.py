"""Endpoint 1: how much worse the held-out truth is denoised with a wrong context, or none; no sampling.

All contexts of an exchange share noise and timesteps. Shapes: L noise levels, G channel groups, W half seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diffdyad.data import files
from diffdyad.data.batches import keyed_generator
from diffdyad.evaluation.effect.conditions import FAR, NEAR, NULL, PLACEBO, TIME, TRUE, Conditions, swapped, without
from diffdyad.evaluation.effect.network import Network
from diffdyad.evaluation.effect.reading import content_key

GROUPS = {"expression": ("expression",), "jaw": ("jaw_pose",), "head": ("global_orient", "neck_pose"),
          "gaze": ("leye_pose", "reye_pose")}  # fmt: skip
MAIN = (TRUE, NULL, NEAR, FAR, PLACEBO)
EXPECTED = (TRUE, NULL, NEAR)
"""Conditions that are asked at pure noise, too: what the network expects, and the partial R2."""

BIN_S = 0.5
LEVELS = (0.7, 0.85, 0.92, 0.95, 0.965, 0.975, 0.985, 0.99)
"""Shares of the training timesteps. A reaction is the constant part of an answer, which shows through the noise until
late: below, every context denoises alike (measured on the rehearsal corpus: d_z 0.1 at 0.4, 0.5 at 0.985)."""

NUM_LEVELS = len(LEVELS)
SECONDARY_LEVELS = (3, 6)
PURE_DRAWS = 4
"""Of pure noise, whose predictions are averaged: the mean of what is expected."""

_FORMAT = 2
_BATCH = 8  # exchanges at a time


def secondary(modalities: Sequence[str]) -> tuple[str, ...]:
    """Conditions that are described, not decided upon: at SECONDARY_LEVELS alone."""
    return (TIME, *map(swapped, modalities), *map(without, modalities))


@dataclass
class Gaps:
    """Squared errors, standardised, of N exchanges.

    errors[condition]: (N, L + 1, G, W) sums over frames and channels, the last level being pure noise, NaN where there
    was no such context or the level was not asked (pure noise: of EXPECTED alone); counts: (N, G, W);
    means[condition]: (N, answer, D) what the network expects, standardised; known: (N, answer, D) bool.
    """

    errors: dict[str, np.ndarray]
    counts: np.ndarray
    means: dict[str, Tensor]
    known: Tensor

    def loss(self, condition: str, group: str = "expression", levels: slice | list[int] | None = None) -> np.ndarray:
        """Mean squared error per exchange, in the channels' variances, mean over levels (pure noise not among them)."""
        place = list(GROUPS).index(group)
        levels = slice(0, NUM_LEVELS) if levels is None else levels
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.errors[condition][:, levels, place].mean(1).sum(1) / self.counts[:, place].sum(1)

    def gap(
        self, wrong: str, right: str = TRUE, group: str = "expression", levels: Sequence[int] = range(NUM_LEVELS)
    ) -> np.ndarray:
        """L(wrong) - L(right) per exchange: (N,); on those of the levels that both were asked at."""
        asked = [level for level in levels
                 if all(np.isfinite(self.errors[name][:, level]).any() for name in (wrong, right))]  # fmt: skip
        if not asked:
            return np.full(len(self.counts), np.nan)
        return self.loss(wrong, group, asked) - self.loss(right, group, asked)

    def expected_error(self, condition: str, group: str = "expression") -> tuple[np.ndarray, np.ndarray]:
        """Squared error of what the network expects, summed, and the number of entries, per exchange."""
        place = list(GROUPS).index(group)
        return self.errors[condition][:, NUM_LEVELS, place].sum(1), self.counts[:, place].sum(1)


def measure(
    network: Network, conditions: Conditions, folder: Path, seed: int = 0,
    share: tuple[int, int] = (0, 1), progress: Callable[[int, int], None] | None = None,
) -> None:
    """Computes what is missing in `folder`; share: (k, n), only every n-th exchange from the k-th on."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{key}.safetensors" for key in keys(network, conditions, seed)]
    # of all: what is missing differs between processes while one of them is already writing
    missing = [index for index in range(share[0], len(paths), share[1]) if not paths[index].exists()]
    batches = [missing[k : k + _BATCH] for k in range(0, len(missing), _BATCH)]
    done, total = 0, sum(map(len, batches))
    for batch in batches:
        for index, tensors in zip(batch, _batch(network, conditions, batch, seed)):
            files.save(paths[index], tensors, {"exchange": conditions.items[index].name})
        done += len(batch)
        if progress:
            progress(done, total)


def gather(network: Network, conditions: Conditions, folder: Path, seed: int = 0) -> Gaps:
    """What `measure` left in the folder, for all exchanges."""
    names = (*MAIN, *secondary(conditions.modalities))
    found = [files.load(folder / f"{key}.safetensors")[0] for key in keys(network, conditions, seed)]
    return Gaps(
        {name: torch.stack([tensors[f"errors/{name}"] for tensors in found]).double().numpy() for name in names},
        torch.stack([tensors["counts"] for tensors in found]).double().numpy(),
        {name: torch.stack([tensors[f"mean/{name}"] for tensors in found]).float() for name in EXPECTED},
        torch.stack([tensors["known"] for tensors in found]),
    )  # fmt: skip


def keys(network: Network, conditions: Conditions, seed: int) -> list[str]:
    """A name for every exchange's result, by all that it follows from."""
    items, swaps, found = conditions.items, conditions.swaps, []
    turns = [content_key(*(cells for _, cells in sorted(item.turn.features.items())),
                         *(() if item.turn.sentence is None else (item.turn.sentence,))) for item in items]  # fmt: skip
    for index, item in enumerate(items):
        donors = [int(d[index]) for d in (swaps.near, swaps.far, swaps.near_too)]
        features = item.features
        found.append(content_key(
            _FORMAT, LEVELS, SECONDARY_LEVELS, PURE_DRAWS, network.fingerprint, network.answer, seed, item.name,
            features.start_s, features.previous_end_s,
            turns[index], [turns[d] if d >= 0 else None for d in donors], features.motion, features.speech,
        ))  # fmt: skip
    return found


def _levels(network: Network) -> list[int]:
    """Training timesteps, the last of them pure noise."""
    return [*(int(level * network.num_timesteps) for level in LEVELS), network.last_timestep]


def _batch(network: Network, conditions: Conditions, batch: Sequence[int], seed: int) -> list[dict[str, Tensor]]:
    items = [conditions.items[index] for index in batch]
    target, known = (torch.stack(x) for x in zip(*[network.target(item) for item in items]))
    generators = [keyed_generator(seed, "gap", item.name) for item in items]
    names = (*MAIN, *secondary(conditions.modalities))
    found = {(name, row): conditions.context(index, name) for name in names for row, index in enumerate(batch)}
    there = [key for key, context in found.items() if context is not None]
    encoded = {}
    for which, wanted in (("pure", EXPECTED), ("main", MAIN), ("all", names)):
        chosen = [key for key in there if key[0] in wanted]
        encoded[which] = chosen, network.encode([items[row] for _, row in chosen], [found[key] for key in chosen])
    counts = _binned(network, known.double())
    errors = {name: torch.full((len(batch), NUM_LEVELS + 1, *counts.shape[1:]), torch.nan, dtype=torch.float64)
              for name in names}  # fmt: skip
    means = {name: torch.full((len(batch), network.answer, target.shape[-1]), torch.nan) for name in EXPECTED}
    for level, timestep in enumerate(_levels(network)):
        pure = level == NUM_LEVELS
        chosen, conditioned = encoded["pure" if pure else "all" if level in SECONDARY_LEVELS else "main"]
        predicted = 0.0
        for _ in range(PURE_DRAWS if pure else 1):
            noise = torch.stack([torch.randn(target.shape[1:], generator=generator) for generator in generators])
            noisy = network.add_noise(target, noise, timestep)[[row for _, row in chosen]]
            predicted = predicted + network.predict(noisy, timestep, conditioned) / (PURE_DRAWS if pure else 1)
        for (name, row), motion in zip(chosen, predicted):
            squares = (motion - target[row]).double().square() * known[row]
            errors[name][row, level] = _binned(network, squares[None])[0]
            if pure:
                means[name][row] = motion[: network.answer]
    return [
        {"counts": counts[row].float(), "known": known[row, : network.answer].clone(),
         **{f"errors/{name}": value[row].float() for name, value in errors.items()},
         **{f"mean/{name}": value[row].half() for name, value in means.items()}}
        for row in range(len(batch))
    ]  # fmt: skip


def _binned(network: Network, values: Tensor) -> Tensor:
    """(B, T, D) -> (B, G, W), sums."""
    layout, fps = network.pipeline.layout, network.pipeline.fps
    width = round(BIN_S * fps)
    values = values[:, : network.answer]
    values = torch.nn.functional.pad(values, (0, 0, 0, -values.shape[1] % width))
    groups = [torch.cat([layout.select(values, group) for group in members], -1) for members in GROUPS.values()]
    return torch.stack([group.sum(-1).unflatten(1, (-1, width)).sum(-1) for group in groups], 1)
