"""Codes as numbers between -1 and 1, for generators that end in tanh and for noise that is centred at 0."""

from dataclasses import dataclass

from torch import Tensor

from common.data.preprocess import Scale


@dataclass(frozen=True)
class Centred:
    """Codes <-> [-1, 1], 2 code / (levels - 1) - 1. The numbers stay discrete, so ldj is 0.

    Back to the nearest code, so that every code survives; `((x + 1) * 127.5).to(uint8)` changes 63 of 256.
    """

    levels: int = 256

    def encode(self, codes: Tensor, generator: object = None) -> tuple[Tensor, Tensor]:
        """Codes (B, ...) -> (float32 in [-1, 1], zeros (B,)). The generator is not used."""
        x, ldj = Scale(self.levels).encode(codes)
        return 2 * x - 1, ldj

    def decode(self, x: Tensor) -> Tensor:
        """The nearest code; values outside [-1, 1] go to the end of the scale."""
        return Scale(self.levels).decode((x + 1) / 2)
