"""A run's weights, their averages and the optimizer's state by name, as checkpoints keep them.

Weights may be spread over processes (FSDP): then all processes must call these functions, and each gets the whole.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from diffdyad.checkpoints import Checkpoint
from diffdyad.errors import UserError


def collect(model: nn.Module, ema: Any, optimizer: Any) -> dict[str, dict[str, Tensor]]:
    """The files of a checkpoint, on the CPU: model, ema and optimizer (`NAME/exp_avg`, ...)."""
    moments = {}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            moments[f"{name}/{key}"] = whole(value)
    return {
        "model": {name: whole(value) for name, value in model.state_dict().items()},
        "ema": named(model, ema.shadow_params),
        "optimizer": moments,
    }


def restore(checkpoint: Checkpoint, model: nn.Module, ema: Any, optimizer: Any) -> None:
    """Puts a checkpoint's tensors in place. Raises UserError where they are of another layout."""
    weights, averaged = checkpoint.tensors("model"), checkpoint.tensors("ema")
    held = dict(model.state_dict())
    wrong = sorted(weights.keys() ^ held.keys()) or [n for n in weights if weights[n].shape != held[n].shape]
    if wrong:
        raise UserError(
            f"the checkpoint {checkpoint.folder} is of another layout than the config ({wrong[0]} differs); choose "
            "another output folder"
        )
    with torch.no_grad():
        for name, tensor in held.items():
            fill(tensor, weights[name])
        for (name, _), shadow in zip(model.named_parameters(), ema.shadow_params, strict=True):
            fill(shadow, averaged[name])
    if checkpoint.format == 1:
        optimizer.load_state_dict(checkpoint.first_format_optimizer())
        return
    parameters = dict(model.named_parameters())
    for key, value in checkpoint.tensors("optimizer").items():
        name, _, moment = key.rpartition("/")
        parameter = parameters[name]
        if value.shape == parameter.shape:
            tensor = torch.zeros_like(parameter, dtype=value.dtype)
            fill(tensor, value)
        else:
            tensor = value.clone()  # the step's number, which stays on the CPU
        optimizer.state[parameter][moment] = tensor


def named(model: nn.Module, values: Iterable[Tensor]) -> dict[str, Tensor]:
    """One tensor per parameter, whole, by the parameters' names."""
    names = [name for name, _ in model.named_parameters()]
    return {name: whole(value) for name, value in zip(names, values, strict=True)}


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor that may be spread over processes, on the CPU."""
    if hasattr(tensor, "full_tensor"):
        tensor = tensor.full_tensor()
    return tensor.detach().cpu()


@torch.no_grad()
def fill(tensor: Tensor, value: Tensor) -> None:
    """Copies `value` into `tensor`, which may hold a part of it only."""
    if hasattr(tensor, "device_mesh"):
        from torch.distributed.tensor import distribute_tensor

        value = distribute_tensor(value.to(tensor.device), tensor.device_mesh, tensor.placements)
    tensor.copy_(value)
