"""Samples that are there twice, and samples that are examples of the data: counted by digests of their codes.

>>> import torch
>>> codes = torch.tensor([[1, 2], [3, 4], [1, 2]], dtype=torch.uint8)
>>> repeats(fingerprints(codes)), shared(fingerprints(codes), fingerprints(codes[:1]))
(1, 2)
"""

import hashlib
from collections.abc import Sequence

from torch import Tensor

DIGEST_BYTES = 16  # two of a million images are given the same by chance once in 10^26 times


def fingerprints(rows: Tensor) -> list[bytes]:
    """A digest of each of (N, ...): codes of images, or features. Equal to the bit, equal digests."""
    flat = rows.detach().cpu().contiguous().flatten(1)
    return [hashlib.blake2b(row.data, digest_size=DIGEST_BYTES).digest() for row in flat.numpy()]


def repeats(samples: Sequence[bytes]) -> int:
    """How many samples are equal to one before them."""
    return len(samples) - len(set(samples))


def shared(samples: Sequence[bytes], data: Sequence[bytes]) -> int:
    """How many samples are equal to an example of the data."""
    known = set(data)
    return sum(each in known for each in samples)
