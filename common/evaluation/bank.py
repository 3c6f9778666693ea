"""The features of a set of examples, as every sample metric takes them: named, finite, and in no order of their own.

>>> samples = Bank("raw-pixels", "samples", "test").add(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
>>> samples
Bank(samples, raw-pixels, n=2, d=2)

A metric of two sets should depend on the sets, not on how they were cut into batches or in which order they came.
Features are therefore handed out with their rows sorted: the same set gives the same tensor, to the bit, and with it
the same subsets, resamples and sums.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor
from tqdm import tqdm

from common.errors import DataError
from common.evaluation.features import Features


@dataclass(repr=False, eq=False)
class Bank:
    """The features of one set of examples, gathered in batches.

    Args:
        network: name of what made the features, "lenet-mnist@a24bccc1"; "" for vectors that no network made.
            Features of different networks do not compare.
        source: what the examples are, for messages and protocols: "samples", "MNIST test".
        split: "train", "val" or "test": which split of the data this is or, of samples, which they are to be compared
            with; "" if none.
    """

    network: str = ""
    source: str = "examples"
    split: str = ""
    _parts: list[Tensor] = field(default_factory=list, init=False)
    _sorted: bool = field(default=True, init=False)

    def add(self, features: Tensor) -> "Bank":
        """Take in features (B, d); B may be anything, 0 too.

        Raises:
            DataError: not two-dimensional, of another d than those before, or with a value that is not finite.
        """
        if features.ndim != 2:
            raise DataError(f"{self.source}: features are (B, d); these have the shape {tuple(features.shape)}.")
        if self._parts and features.shape[1] != self.dims:
            raise DataError(f"{self.source}: features of {features.shape[1]} dimensions after features of {self.dims}.")
        if len(features) == 0:
            return self
        x = features.detach().to("cpu", torch.float64) + 0.0  # a copy, in which -0.0 is 0.0
        if not x.isfinite().all():
            raise DataError(f"{self.source}: a feature is not a finite number: look at what made the samples.")
        self._parts.append(x)
        self._sorted = False
        return self

    @property
    def n(self) -> int:
        """How many examples there are."""
        return sum(len(part) for part in self._parts)

    @property
    def dims(self) -> int:
        """d, the size of a feature; 0 as long as there is none."""
        return self._parts[0].shape[1] if self._parts else 0

    @property
    def x(self) -> Tensor:
        """(n, d) float64, the rows sorted by their first entries, equal ones by their second, and so on.

        The bank's own tensor, which is not to be written into.
        """
        if not self._parts:
            return torch.zeros(0, 0, dtype=torch.float64)
        if not self._sorted:
            rows = torch.cat(self._parts)
            self._parts = [rows[_order(rows)]]
            self._sorted = True
        return self._parts[0]

    def __repr__(self) -> str:
        return f"Bank({self.source}, {self.network or 'unnamed features'}, n={self.n:,}, d={self.dims})"


def _order(rows: Tensor) -> Tensor:
    """The permutation (n,) that sorts rows (n, d) lexicographically."""
    order = torch.argsort(rows[:, 0])
    equal = rows[order[1:], 0] == rows[order[:-1], 0]
    no = equal.new_zeros(1)
    open_ = torch.cat([equal, no]) | torch.cat([no, equal])  # places (n,) whose rows column 0 does not tell apart
    if open_.any():  # sorting whole rows takes ten times as long: it is done for these alone
        _, rank = torch.unique(rows[order[open_]], dim=0, return_inverse=True)
        order[open_] = order[open_][torch.argsort(rank)]
    return order


def bank(
    features: Features, codes: Tensor, *, source: str, split: str, batch_size: int = 1000, progress: str = ""
) -> Bank:
    """The features of uint8 images (N, C, H, W) under a network.

    Args:
        progress: label of a progress bar; none when empty.

    Raises:
        DataError: images that the network does not take, or a feature that is not finite.
    """
    found = Bank(features.name, source, split)
    for batch in tqdm(torch.split(codes, batch_size), desc=progress, disable=not progress, unit="batch"):
        if len(batch):
            found.add(features(batch))
    return found


def check_pair(samples: Bank, reference: Bank, metric: str, at_least: int = 2) -> None:
    """Refuse two banks that do not compare.

    Args:
        metric: what is to be measured, for the message.
        at_least: examples that it takes on either side.

    Raises:
        DataError: features of different networks or sizes, samples that are to be compared with another split, or too
            few examples.
    """
    for side in (samples, reference):
        if side.n == 0:
            raise DataError(f"{metric}: {side.source} is empty; it takes at least {at_least:,} examples.")
    if samples.network != reference.network:
        raise DataError(
            f"{metric}: features of {samples.network or 'no network'} ({samples.source}) do not compare with those of "
            f"{reference.network or 'no network'} ({reference.source}): make both by one network."
        )
    if samples.dims != reference.dims:
        raise DataError(
            f"{metric}: features of {samples.dims} dimensions ({samples.source}) do not compare with those of "
            f"{reference.dims} ({reference.source}): make both from examples of one size."
        )
    if samples.split and reference.split and samples.split != reference.split:
        raise DataError(
            f"{metric}: {samples.source} is to be compared with the split '{samples.split}', and {reference.source} is "
            f"of '{reference.split}': name the split that is used."
        )
    for side in (samples, reference):
        if side.n < at_least:
            raise DataError(
                f"{metric}: {side.n:,} examples of {side.source} are too few: it takes at least {at_least:,}. Make "
                f"or read {at_least - side.n:,} more."
            )
