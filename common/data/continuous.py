"""Data as a density model sees them: images with noise in logit space, or points in the plane, by one interface."""

from __future__ import annotations

import torch
from torch import Tensor

from common.data import toy
from common.data.preprocess import Compose, Dequantise, Logit
from common.data.registry import load
from common.data.splits import Data, array_digest
from common.errors import ConfigError

SPLITS = ("train", "val", "test")
POINTS = {"train": 100_000, "val": 5_000, "test": 20_000}


class Continuous:
    """A data set of images, dequantised by uniform noise and sent through a logit, or a density of `common.data.toy`.

    `split(name)` is the same in every run, to the bit: its noise, or its points, are drawn once and for all. Points of
    the three splits are independent draws.

    name: of a data set of images, or of a density in the plane.
    record: told the digest by which a record names the data (`Run.data`); of points, that of the test split.
    shape: of one example, (C, H, W) or (2,).
    images: the data set with its codes; None in the plane.
    density: the exact density in the plane; None for images.
    """

    def __init__(self, name: str, alpha: float = 0.05, record: dict[str, str] | None = None) -> None:
        self.name, self.alpha = name, alpha
        self.density = toy.density(name) if name in toy.names() else None
        self.images: Data | None = None if self.density else load(name)
        self.shape: tuple[int, ...] = (2,) if self.images is None else tuple(self.images.train.x.shape[1:])
        if record is not None:
            record[name] = self.images.sha256 if self.images else array_digest(self.split("test")[0].numpy())

    @property
    def preprocess(self) -> Compose:
        """From codes to the model's space and back. Raises ConfigError in the plane, where there are none."""
        if self.images is None or self.images.levels is None:
            raise ConfigError(f"{self.name} has no codes: nothing is to be dequantised.")
        return Compose(Dequantise(self.images.levels), Logit(self.alpha))

    def split(self, name: str) -> tuple[Tensor, Tensor]:
        """x (N, *shape) of "train", "val" or "test", and the log-determinant (N,) in nats that leads back to codes.

        log P(codes) >= E[log p(x) + ldj]; in the plane ldj is 0. Raises ConfigError for another name.
        """
        if name not in SPLITS:
            raise ConfigError(f"There is no split '{name}'; there are {', '.join(SPLITS)}.")
        generator = torch.Generator().manual_seed(SPLITS.index(name))
        if self.density is not None:
            x = self.density.sample(POINTS[name], generator)
            return x, torch.zeros(len(x))
        return self.preprocess.encode(getattr(self.images, name).x, generator)
