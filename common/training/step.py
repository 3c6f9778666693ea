"""One update by one optimiser: what most projects' training step calls, once or several times."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from common.errors import ConfigError
from common.training import distributed

Batch = TypeVar("Batch")
Loss = Callable[[Batch], tuple[Tensor, Mapping[str, Tensor]]]


def sgd_step(
    loss_fn: Loss[Batch],
    optimizer: Optimizer,
    batch: Batch,
    *,
    micro: int | None = None,
    clip: float | None = None,
    amp: Literal["bf16"] | None = None,
) -> dict[str, Tensor]:
    """One step of `optimizer` down the gradient of `loss_fn(batch)`.

    Only the optimiser's own parameters get a gradient, so a discriminator's step leaves the generator's untouched.
    Under `torchrun` gradients and metrics are averaged over the processes, each weighted by its number of examples.

    Args:
        loss_fn: batch -> (loss, metrics). The loss is a *mean* over the examples of the batch it is given, 0-dim;
            so is every metric. A metric called "loss" takes the place of the loss in what is returned (an objective
            whose gradient comes from a surrogate reports its value that way).
        optimizer: its parameters that require a gradient are updated.
        batch: a tensor, or a tuple, named tuple, dataclass or dict of tensors (or None), all with examples along
            the first dimension.
        micro: examples at a time; the gradient is that of the whole batch, at the memory of `micro` examples.
        clip: largest global norm of the gradient; its norm before clipping is returned as "grad_norm".
        amp: "bf16" runs `loss_fn` under bfloat16 autocast; parameters and their updates stay as they are.

    Returns 0-dim tensors on the device, without graph: {"loss", metrics..., "grad_norm" if clipped}.

    Raises `ConfigError` for a `micro`, `clip` or `amp` out of range, or an empty batch.
    """
    size = batch_size(batch)
    if micro is not None and micro < 1:
        raise ConfigError(f"micro must be at least 1 example, not {micro}.")
    if clip is not None and not clip > 0:
        raise ConfigError(f"clip must be above 0, not {clip}.")
    if amp not in (None, "bf16"):
        raise ConfigError(f"amp must be 'bf16' or None, not {amp!r}.")
    if size == 0 and distributed.world_size() == 1:
        raise ConfigError("A training step got an empty batch: is the data set smaller than a batch?")

    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
    optimizer.zero_grad(set_to_none=True)
    metrics: dict[str, Tensor] = {}
    for part, share in _parts(batch, size, micro):
        with _autocast(amp, parameters):
            loss, found = loss_fn(part)
        (loss if share == 1.0 else loss * share).backward(inputs=parameters)  # type: ignore[no-untyped-call]
        for name, value in {"loss": loss, **found}.items():
            value = value.detach()
            if share != 1.0:
                value = value * share
                if name in metrics:
                    value = metrics[name] + value
            metrics[name] = value
    if distributed.world_size() > 1:
        metrics = _average_over_processes(parameters, metrics, size)
    if clip is not None:
        metrics["grad_norm"] = torch.nn.utils.clip_grad_norm_(parameters, clip)
    optimizer.step()
    return metrics


def batch_size(batch: Any) -> int:
    """Number of examples: the length of the first tensor in `batch`."""
    first = next(_tensors(batch), None)
    if first is None:
        raise ConfigError(f"No tensor in a batch of type {type(batch).__name__}.")
    return len(first)


def _parts(batch: Batch, size: int, micro: int | None) -> Iterator[tuple[Batch, float]]:
    """The batch in pieces of `micro` examples with each piece's share of the whole; the last may be short."""
    if size == 0:
        return
    if micro is None or micro >= size:
        yield batch, 1.0
        return
    for start in range(0, size, micro):
        stop = min(start + micro, size)
        yield _slice(batch, start, stop), (stop - start) / size


def _tensors(batch: Any) -> Iterator[Tensor]:
    if isinstance(batch, Tensor):
        yield batch
    elif dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        for field in dataclasses.fields(batch):
            yield from _tensors(getattr(batch, field.name))
    elif isinstance(batch, Mapping):
        for value in batch.values():
            yield from _tensors(value)
    elif isinstance(batch, (tuple, list)):
        for value in batch:
            yield from _tensors(value)


def _slice(batch: Any, start: int, stop: int) -> Any:
    if isinstance(batch, Tensor):
        return batch[start:stop]
    if batch is None:
        return None
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        parts = {f.name: _slice(getattr(batch, f.name), start, stop) for f in dataclasses.fields(batch)}
        return dataclasses.replace(batch, **parts)
    if isinstance(batch, Mapping):
        return {name: _slice(value, start, stop) for name, value in batch.items()}
    if isinstance(batch, (tuple, list)):
        values = [_slice(value, start, stop) for value in batch]
        return type(batch)(*values) if hasattr(batch, "_fields") else type(batch)(values)
    raise ConfigError(f"A batch may hold tensors and None, not {type(batch).__name__}.")


def _autocast(amp: str | None, parameters: Sequence[Tensor]) -> AbstractContextManager[Any]:
    if amp is None:
        return nullcontext()
    return torch.autocast(parameters[0].device.type, dtype=torch.bfloat16)


def _average_over_processes(parameters: Sequence[Tensor], metrics: dict[str, Tensor], size: int) -> dict[str, Tensor]:
    """Replace gradients and metrics by their averages over all processes' examples.

    A parameter without gradient anywhere keeps none (optimisers skip it, as one process would); a process may have no
    example at all in a short last batch.
    """
    header = torch.tensor([size, int(size == 0), *(int(p.grad is not None) for p in parameters)])
    examples, empty, *counts = distributed.all_sum(header).tolist()
    if examples == 0:
        raise ConfigError("A training step got an empty batch: is the data set smaller than a batch?")
    used = [p for p, count in zip(parameters, counts, strict=True) if count]
    for p in used:
        if p.grad is None:
            p.grad = torch.zeros_like(p)
    names = list(metrics)
    if empty:
        names = next(each for each in distributed.gather(names) if each)
    device = parameters[0].device
    values = torch.zeros(len(names), device=device)
    if metrics:
        values = torch.stack([metrics[name].to(device, torch.float32) for name in names])
    gradients = [p.grad for p in used if p.grad is not None]
    distributed.average([*gradients, values], size / examples)
    return dict(zip(names, values.unbind(), strict=True))
