"""Data sets by name, verified; preprocessing with its log-determinant; batch streams that resume.

>>> data = load("digits")                                   # doctest: +SKIP
>>> batches = Batches(data.train, batch_size=128, seed=0)   # doctest: +SKIP
>>> batches(step=0).x.shape                                 # doctest: +SKIP
torch.Size([128, 1, 8, 8])

`load` knows where to look and what the content must be (`registry`, `sources`, `formats`),
`preprocess` is the only place that turns codes into real numbers and back, `toy` has 2-D densities
whose log-density and entropy are known.
"""

from common.data.batches import Batch, Batches, in_order
from common.data.preprocess import (
    Binarise,
    Compose,
    Dequantise,
    Logit,
    Preprocess,
    Scale,
    bits_per_dim,
)
from common.data.registry import load, names
from common.data.splits import Data, Split

__all__ = [
    "Batch",
    "Batches",
    "Binarise",
    "Compose",
    "Data",
    "Dequantise",
    "Logit",
    "Preprocess",
    "Scale",
    "Split",
    "bits_per_dim",
    "in_order",
    "load",
    "names",
]
