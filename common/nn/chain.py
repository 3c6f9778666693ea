"""Invertible layers one after the other, and pixels that become channels."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn


class Chain(nn.ModuleList):
    """Layers with forward x -> (y, log |det dy/dx| (B,)) and inverse y -> x, as one such layer."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The layers in order; their log-determinants add up."""
        ldj = x.new_zeros(len(x))
        for layer in self:
            x, more = layer(x)
            ldj = ldj + more
        return x, ldj

    def inverse(self, y: Tensor) -> Tensor:
        """The layers' inverses, the last one first."""
        layer: Any
        for layer in reversed(self):
            y = layer.inverse(y)
        return y


class Squeeze(nn.Module):
    """2 x 2 pixels become 4 channels, (B, C, H, W) -> (B, 4 C, H/2, W/2); channel 4 c + 2 k + l has row k, column l."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) -> ((B, 4 C, H/2, W/2), zeros (B,)): nothing is scaled. H and W have to be even."""
        return F.pixel_unshuffle(x, 2), x.new_zeros(len(x))

    def inverse(self, y: Tensor) -> Tensor:
        """(B, 4 C, H, W) -> (B, C, 2 H, 2 W)."""
        return F.pixel_shuffle(y, 2)
