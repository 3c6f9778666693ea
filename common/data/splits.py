"""A data set in memory: three splits, where they came from, and the digest of their content."""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.errors import DataError


@dataclass(frozen=True, repr=False)
class Split:
    """Examples, and their labels where the data set has some.

    x: uint8 images (N, C, H, W) or vectors (N, D), or integer token sequences (N, T).
    y: int64 labels (N,), or None.
    """

    x: Tensor
    y: Tensor | None = None

    def __post_init__(self) -> None:
        if self.y is not None and len(self.y) != len(self.x):
            raise DataError(f"A split has {len(self.x)} examples and {len(self.y)} labels.")

    def __len__(self) -> int:
        return len(self.x)

    def __repr__(self) -> str:
        dtype = str(self.x.dtype).removeprefix("torch.")
        labels = "no labels" if self.y is None else "labelled"
        return f"Split({len(self):,} x {tuple(self.x.shape[1:])} {dtype}, {labels})"


@dataclass(frozen=True, repr=False)
class Data:
    """A data set: what `common.data.load` returns.

    levels: how many values an element can take (256 for bytes, 2 for binary data); None where that
        has no meaning.
    source: where the files were found, in words.
    sha256: digest of the content (`content_digest`), by which it was verified; the same from every
        source.
    """

    name: str
    train: Split
    val: Split
    test: Split
    levels: int | None
    source: str
    sha256: str

    @property
    def trainval(self) -> Split:
        """Training and validation examples joined, in that order.

        What a paper without a validation set trains on.
        """
        y = None
        if self.train.y is not None and self.val.y is not None:
            y = torch.cat([self.train.y, self.val.y])
        return Split(torch.cat([self.train.x, self.val.x]), y)

    @property
    def dims(self) -> int:
        """Elements per example, C·H·W or T: what `bits_per_dim` divides by."""
        return self.train.x[0].numel()

    def __repr__(self) -> str:
        levels = "" if self.levels is None else f", {self.levels} levels"
        splits = "".join(f"\n  {name:5} {getattr(self, name)!r}" for name in ("train", "val", "test"))
        return f"Data({self.name!r}{levels}, sha256 {self.sha256[:12]}…, from {self.source}{splits}\n)"


def content_digest(splits: dict[str, Split]) -> str:
    """SHA-256 over the arrays of all splits: their names, types, shapes and values.

    A gzip header, a file's name or its format changes nothing; a single pixel, a label or a moved
    boundary between two splits changes everything.
    """
    digest = hashlib.sha256()
    for name, split in splits.items():
        for part, tensor in (("x", split.x), ("y", split.y)):
            if tensor is None:
                continue
            array = tensor.contiguous().cpu().numpy()
            digest.update(_header(f"{name}.{part}", array))
            digest.update(_bytes(array))
    return digest.hexdigest()


def array_digest(array: NDArray[Any]) -> str:
    """SHA-256 of one array's type, shape and values."""
    digest = hashlib.sha256(_header("array", array))
    digest.update(_bytes(array))
    return digest.hexdigest()


def _header(name: str, array: NDArray[Any]) -> bytes:
    return f"{name} {array.dtype.name} {array.shape}\n".encode()


def _bytes(array: NDArray[Any]) -> memoryview:
    """An array's values in little-endian order, without a copy where none is needed."""
    array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return array.reshape(-1).view(np.uint8).data
