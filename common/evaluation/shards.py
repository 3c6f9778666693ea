"""Evaluation and sampling divided among the processes of a run, with the bits that one process gives.

`by_batch` deals the batches of a split to the processes of `torchrun`, and `drawn` the chunks of a sample: number i
goes to process i modulo their number. Every process then has all values, in order. What a batch comes to depends on
the batch alone: on its examples and, where chance enters, on a generator seeded by (seed, the batch's number). So it
does not matter who computes it, and as many processes as you like give the same bits, as long as each has as many
threads (`torchrun` gives it one).

In one process, the same code does all the work; so papers need no second way of measuring:

>>> x = torch.arange(10.0).view(5, 2)
>>> by_batch(lambda x: x.sum(1), x, batch_size=2)
tensor([ 1.,  5.,  9., 13., 17.])
>>> drawn(lambda n, generator: torch.randn(n, 3, generator=generator), 7, chunk=4, seed=0).shape
torch.Size([7, 3])

Every process calls a paper's `evaluate`; what is not written with these is done by each of them. Only the first one's
scores are kept, and only it may write. `illustrate` is called in the first process alone, which then does all the work.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from common.errors import ConfigError
from common.training import distributed

if TYPE_CHECKING:
    from common.evaluation.features import Features


def by_batch(
    compute: Callable[..., Tensor], *tensors: Tensor, batch_size: int, seed: int | None = None, progress: str = ""
) -> Tensor:
    """Values of every example, computed a batch at a time by whichever process the batch was dealt to.

    Called by all processes, with the same arguments and equal models. Without gradients.

    Args:
        compute: batch -> (B, ...), a row for each of its B examples. It is given one slice of every tensor and, if
            there is a seed, `generator`: a generator of the batch's own, on the device of the first tensor.
        tensors: of N examples each, in the same order.
        batch_size: examples at a time; the last batch may be shorter.
        seed: what the batches' generators are seeded by, together with the batch's number.
        progress: label of a progress bar over this process's batches; none when empty.

    Returns:
        (N, ...), in the order of the examples, on the device that `compute` puts its values on; the same everywhere.

    Raises:
        ConfigError: there is no example, the tensors differ in length, `batch_size` is below 1, or `compute` does not
            give a row for each example.
    """
    if not tensors or len(tensors[0]) == 0:
        raise ConfigError("there are no examples to evaluate: the split is empty.")
    n = len(tensors[0])
    if any(len(tensor) != n for tensor in tensors):
        raise ConfigError(f"tensors of {', '.join(str(len(t)) for t in tensors)} examples: all need the same number.")
    device = tensors[0].device

    def value(start: int, stop: int, index: int) -> Tensor:
        how: dict[str, Any] = {} if seed is None else {"generator": _generator(seed, index, device)}
        return compute(*(tensor[start:stop] for tensor in tensors), **how)

    return _shared(value, n, batch_size, "batch_size", progress)


def drawn(
    draw: Callable[[int, torch.Generator], Tensor],
    n: int,
    *,
    chunk: int,
    seed: int,
    device: torch.device | str = "cpu",
    progress: str = "",
) -> Tensor:
    """n samples of a model, a chunk at a time, by whichever process the chunk was dealt to.

    The first samples are the same for every n, but for those of a last chunk that is cut short.

    Args:
        draw: (count, generator) -> (count, ...).
        chunk: samples at a time; it decides which random numbers are drawn.
        seed: what the chunks' generators are seeded by, together with the chunk's number.
        device: that of the generators.

    Returns:
        (n, ...), the same everywhere; see `by_batch`, whose errors this raises, too.
    """
    if n < 1:
        raise ConfigError(f"n = {n}: at least one sample is to be drawn.")
    place = torch.device(device)
    return _shared(
        lambda start, stop, index: draw(stop - start, _generator(seed, index, place)), n, chunk, "chunk", progress
    )


@dataclass(frozen=True)
class Dealt:
    """A feature extractor whose images are dealt to the processes, a few at a time: what looks at them may be large.

    >>> from common.evaluation.features import raw_pixels
    >>> Dealt(raw_pixels((1, 2, 2))).name
    'raw-pixels'
    """

    features: Features
    batch_size: int = 100

    @property
    def name(self) -> str:
        return self.features.name

    @property
    def dims(self) -> int:
        return self.features.dims

    def __call__(self, codes: Tensor) -> Tensor:
        return by_batch(self.features, codes, batch_size=self.batch_size)


def _generator(seed: int, index: int, device: torch.device) -> torch.Generator:
    """A batch's own generator: neighbouring seeds and batches have unrelated numbers."""
    mixed = int(np.random.SeedSequence([abs(seed), index]).generate_state(1, np.uint64)[0])
    return torch.Generator(device).manual_seed(mixed)


@torch.no_grad()
def _shared(value: Callable[[int, int, int], Tensor], n: int, size: int, named: str, progress: str) -> Tensor:
    """The rows of value(start, stop, index) for all batches of n examples, each computed by one process."""
    if size < 1:
        raise ConfigError(f"{named} = {size}: it must be at least 1.")
    rank, world = distributed.rank(), distributed.world_size()
    mine = range(rank, -(-n // size), world)
    parts: dict[int, Tensor] = {}
    for index in tqdm(mine, desc=progress, unit="batch", disable=not progress, mininterval=0.5):
        start, stop = index * size, min((index + 1) * size, n)
        parts[index] = value(start, stop, index)
        if parts[index].dim() == 0 or len(parts[index]) != stop - start:
            got = f"a tensor of shape {tuple(parts[index].shape)}"
            raise ConfigError(f"a batch of {stop - start} examples gave {got}: a row for each of them is needed.")
    if world == 1:
        return torch.cat([parts[index] for index in mine])
    # There may be more processes than batches: one without any learns from the others what a row is.
    found = distributed.gather([(tuple(p.shape[1:]), p.dtype, p.device.type) for p in parts.values()])
    kind = {each for of_process in found for each in of_process}
    if len(kind) != 1:
        kinds_found = ", ".join(sorted(f"{shape} {dtype} {device}" for shape, dtype, device in kind))
        raise ConfigError(f"batches gave rows of different kinds: {kinds_found}.")
    shape, dtype, device = kind.pop()
    rows = torch.zeros((n, *shape), dtype=dtype, device=device)
    for index, part in parts.items():
        rows[index * size : index * size + len(part)] = part
    # All other processes have zeros where this one has values, so that a sum of bytes is exact: of -0.0 and NaN, too.
    distributed.all_sum(rows.view(-1).view(torch.uint8))
    return rows
