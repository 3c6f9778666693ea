"""A set of images as codes, read in batches, and what it has to be like."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from common.errors import DataError


@dataclass(frozen=True)
class Like:
    """What samples have to be like: the images of a data set."""

    name: str
    shape: tuple[int, ...]  # (C, H, W), or (D,) of vectors
    levels: int = 256


@dataclass(frozen=True, repr=False)
class Images:
    """Samples as codes, read in batches.

    shape: of one of them, (C, H, W).
    split: which split of the data they are to be compared with, where their file says so; "" where it does not.
    notes: what a reader of scores should know about how they were read, one sentence each.
    decides: what of the files themselves changes scores, such as their compression; it belongs into the protocol.
    """

    name: str
    n: int
    shape: tuple[int, ...]
    read: Callable[[Sequence[int]], Tensor]  # places -> uint8 (B, C, H, W)
    split: str = ""
    notes: tuple[str, ...] = ()
    decides: tuple[str, ...] = ()

    def batches(self, size: int, rows: Tensor | None = None) -> Iterator[Tensor]:
        """uint8 (B, C, H, W) codes: all of them, or those at `rows` (n,), in that order.

        Raises:
            DataError: a file turns out to be damaged; it is named.
        """
        for some in torch.split(torch.arange(self.n) if rows is None else rows, size):
            yield self.read(some.tolist())

    def __repr__(self) -> str:
        return f"Images({self.name}, {self.n:,} x {self.shape})"


class Digest:
    """SHA-256 of codes (N, ...) that come in batches: of their shape, type and values, whatever file held them."""

    def __init__(self, shape: Sequence[int]) -> None:
        self._sha = hashlib.sha256(f"uint8 {tuple(shape)}\n".encode())

    def add(self, codes: Tensor) -> None:
        """Take in the next batch."""
        self._sha.update(codes.contiguous().cpu().numpy().data)

    def hex(self) -> str:
        """64 hexadecimal digits."""
        return self._sha.hexdigest()


def check_like(shape: tuple[int, ...], like: Like | None, where: str) -> None:
    """The images are of the data's size and colours."""
    if like is None or shape == like.shape:
        return
    if len(shape) != 3 or len(like.shape) != 3:
        raise DataError(f"{where}: samples of shape {shape}; those of {like.name} are {like.shape}.")
    if shape[0] != like.shape[0]:
        colours = {1: "grey", 3: "RGB"}
        is_, wanted = (colours.get(n, f"images of {n} channels") for n in (shape[0], like.shape[0]))
        remedy = "save them as grey, mode L" if like.shape[0] == 1 else "save them as RGB"
        raise DataError(f"{where}: the samples are {is_}, the images of {like.name} are {wanted}: {remedy}.")
    raise DataError(
        f"{where}: the samples are {shape[1]}x{shape[2]}, the images of {like.name} are {like.shape[1]}x"
        f"{like.shape[2]}. Scores depend on how images are resized, so nothing is resized here: make them of that size."
    )
