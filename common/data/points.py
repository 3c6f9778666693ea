"""Endless points in the plane: batches by step, as `Batches` gives them of a split; and a Swiss roll.

`common.data.toy` has the densities that are known exactly.
"""

import hashlib
import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from common.data.batches import Batch
from common.errors import DataError

Sampler = Callable[[int, torch.Generator], Tensor]
"""(n, generator) -> n independent points (n, 2), on the CPU."""


class Endless:
    """Batches of fresh draws; batch number `step` depends on (seed, step) only, so that there is nothing to save.

    Raises DataError for a batch size below 1 or a negative seed.
    """

    def __init__(self, sampler: Sampler, batch_size: int, seed: int, device: torch.device | str = "cpu") -> None:
        if batch_size < 1:
            raise DataError(f"batch_size is {batch_size}; it must be at least 1.")
        if seed < 0:
            raise DataError(f"seed is {seed}; it must not be negative.")
        self.sampler, self.batch_size, self.seed, self.device = sampler, batch_size, seed, torch.device(device)

    def __call__(self, step: int) -> Batch:
        """Batch number `step`, counted from 0."""
        # As in `batches.permutation`: mixed, so that neighbouring seeds and steps have unrelated draws.
        mixed = int(np.random.SeedSequence([self.seed, step]).generate_state(1, np.uint64)[0])
        return Batch(self.sampler(self.batch_size, torch.Generator().manual_seed(mixed)).to(self.device))


def swiss_roll(n: int, generator: torch.Generator) -> Tensor:
    """A spiral of one and a half turns, radius = angle = 1.5 pi to 4.5 pi, plus noise of deviation 0.25; all over 7.5.

    scikit-learn's `make_swiss_roll(noise=0.25)` seen from its side, scaled as the code of Gulrajani et al. 2017 does.
    """
    t = 1.5 * math.pi * (1 + 2 * torch.rand(n, generator=generator))
    roll = torch.stack([t * t.cos(), t * t.sin()], 1) + 0.25 * torch.randn(n, 2, generator=generator)
    return roll / 7.5


def digest(x: Tensor) -> str:
    """SHA-256 of points, by which a record names those it was scored on; drawn anew, they are the same to the bit."""
    return hashlib.sha256(x.detach().cpu().contiguous().numpy().tobytes()).hexdigest()
