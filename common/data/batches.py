"""Batch streams: the data stay on the device; batch number `step` depends on (seed, step) only.

There is no iterator to save: a run that was killed after step 1234 asks for `batches(1235)` and
gets what it would have got. The order is drawn on the CPU, so it is the same on every device.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from common.data.splits import Split
from common.errors import DataError


class Batch(NamedTuple):
    """x: (B, ...) as in the split, y: (B,) or None. Unpacks: `x, y = batches(step)`."""

    x: Tensor
    y: Tensor | None = None


class Batches:
    """Shuffled batches of a split, by step.

    split: what to draw from; copied to `device` once and kept there.
    batch_size: examples in one *global* batch; with several processes each gets its slice of it.
    seed: with the epoch, decides the order (`permutation`).
    drop_last: leave out the short batch at an epoch's end (each epoch leaves out other examples).
    rank, world: which slice of how many; by default what torch.distributed says where it runs, else
        0 of 1. Slices are contiguous and differ by at most one example; joined in the order of
        ranks they are the global batch.

    Raises DataError for an empty split, a batch size that leaves no batch, or a batch too small to
    share.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        seed: int,
        device: torch.device | str = "cpu",
        drop_last: bool = True,
        rank: int | None = None,
        world: int | None = None,
    ) -> None:
        if len(split) == 0:
            raise DataError("The split is empty: there is nothing to draw batches from.")
        if batch_size < 1:
            raise DataError(f"batch_size is {batch_size}; it must be at least 1.")
        if seed < 0:
            raise DataError(f"seed is {seed}; it must not be negative.")
        if drop_last and batch_size > len(split):
            raise DataError(
                f"batch_size {batch_size} is larger than the split ({len(split)} examples), and "
                "drop_last leaves out the short batch: no batch is left. "
                "Use a smaller batch_size, or drop_last=False."
            )
        self.rank, self.world = _process(rank, world)
        short = len(split) % batch_size
        smallest = batch_size if drop_last or not short else short
        if smallest < self.world:
            raise DataError(
                f"A batch of {smallest} cannot be shared by {self.world} processes. "
                "Use a larger batch_size or, if it is the short last batch, drop_last=True."
            )
        self.batch_size = batch_size
        self.seed = seed
        self.drop_last = drop_last
        self.device = torch.device(device)
        self._x = split.x.to(self.device)
        self._words = _words(self._x)
        self._y = None if split.y is None else split.y.to(self.device)
        self._n = len(split)
        self._order: tuple[int, Tensor] | None = None  # (epoch, its permutation on the device)

    def __len__(self) -> int:
        """Steps per epoch."""
        full, short = divmod(self._n, self.batch_size)
        return full + bool(short and not self.drop_last)

    def epoch(self, step: int) -> int:
        """The epoch, counted from 0, that batch number `step` belongs to."""
        return step // len(self)

    def __call__(self, step: int) -> Batch:
        """Batch number `step`, counted from 0: this process's slice of it."""
        epoch, place = divmod(step, len(self))
        if self._order is None or self._order[0] != epoch:
            self._order = (epoch, permutation(self._n, self.seed, epoch).to(self.device))
        start = place * self.batch_size
        size = min(self.batch_size, self._n - start)
        first = start + self.rank * size // self.world
        last = start + (self.rank + 1) * size // self.world
        chosen = self._order[1][first:last]
        y = None if self._y is None else self._y.index_select(0, chosen)
        x = self._words.index_select(0, chosen).view(self._x.dtype)
        return Batch(x.view(len(chosen), *self._x.shape[1:]), y)

    def __repr__(self) -> str:
        return (
            f"Batches({self._n:,} examples by {self.batch_size}, {len(self)} steps an epoch, "
            f"seed {self.seed}, on {self.device}, process {self.rank} of {self.world})"
        )


def permutation(n: int, seed: int, epoch: int) -> Tensor:
    """The order of an epoch: int64 (n,), on the CPU.

    `torch.randperm` with a generator seeded by the 64 bits that numpy's SeedSequence mixes from
    (seed, epoch), so that neighbouring seeds and epochs have unrelated orders (seed 1, epoch 0 is
    not seed 0, epoch 1).
    """
    mixed = int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0])
    return torch.randperm(n, generator=torch.Generator().manual_seed(mixed))


def in_order(split: Split, batch_size: int, device: torch.device | str = "cpu") -> Iterator[Batch]:
    """Every example once, in the split's order, the short last batch included: for evaluation.

    Take sums over examples, not means over these batches: the last one weighs less.
    Raises DataError for an empty split or a batch_size below 1.
    """
    if len(split) == 0:
        raise DataError("The split is empty: there is nothing to evaluate.")
    if batch_size < 1:
        raise DataError(f"batch_size is {batch_size}; it must be at least 1.")
    return _slices(split, batch_size, torch.device(device))


def _slices(split: Split, batch_size: int, device: torch.device) -> Iterator[Batch]:
    for start in range(0, len(split), batch_size):
        part = slice(start, start + batch_size)
        y = None if split.y is None else split.y[part].to(device)
        yield Batch(split.x[part].to(device), y)


def _words(x: Tensor) -> Tensor:
    """The same memory, an example a row, in words of 8 bytes where that goes: (N, words).

    Bytes are gathered one by one, words eight at a time; and a batch of words is small enough for
    torch not to wake its other threads, which on a busy machine costs a thousand times the copy.
    """
    rows = x.contiguous().flatten(1)
    size = rows.element_size()
    whole = rows.shape[1] * size % 8 == 0 and rows.storage_offset() * size % 8 == 0
    return rows.view(torch.int64) if whole else rows


def _process(rank: int | None, world: int | None) -> tuple[int, int]:
    if (rank is None) != (world is None):
        raise DataError("rank and world go together: give both or neither.")
    if rank is None or world is None:
        distributed = torch.distributed
        if not (distributed.is_available() and distributed.is_initialized()):
            return 0, 1
        return distributed.get_rank(), distributed.get_world_size()
    if not 0 <= rank < world:
        raise DataError(f"rank {rank} of {world} processes: it must be between 0 and {world - 1}.")
    return rank, world
