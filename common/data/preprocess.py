"""From codes to what a model sees, and back: the only place that knows how many levels a pixel has.

A preprocessing is `encode(codes) -> (x, ldj)` and `decode(x) -> codes`. `ldj` (B,), in nats, is
what must be added to the model's log-density of x to have the log-probability of the codes:

    x, ldj = encode(codes)
    log P(codes)  >=  E[ log p(x) + ldj ]        over the dequantisation noise

with equality for discrete models, where nothing is dequantised and ldj = 0. `bits_per_dim` does the
rest:

    bits_per_dim(model.log_prob(x) + ldj, data.dims)

No function here modifies the tensor it is given.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from common.errors import DataError


class Preprocess(Protocol):
    """What every preprocessing offers; nothing to inherit."""

    def encode(self, x: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Codes (B, ...) -> (what the model sees (B, ...), log-determinant (B,) in nats)."""
        ...

    def decode(self, x: Tensor) -> Tensor:
        """What the model sees, or produced, (B, ...) -> codes (B, ...)."""
        ...


@dataclass(frozen=True)
class Binarise:
    """Codes -> {0, 1}, each element 1 with probability code / (levels - 1): drawn at every call.

    "Dynamic" binarisation (Salakhutdinov & Murray 2008; Burda, Grosse & Salakhutdinov 2016, section
    5). It throws information away, so it is no bijection: ldj is 0 and the likelihood is that of
    the binary images, a different quantity from bits per dimension of the grey ones. With levels=2,
    and for pixels at either end of the scale, it changes nothing.
    """

    levels: int = 256

    def encode(self, x: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Codes (B, ...) -> (float32 in {0, 1}, zeros (B,))."""
        _require_codes(x, self.levels)
        probability = x.to(torch.float32) / (self.levels - 1)
        return (_uniform(x, generator) < probability).to(torch.float32), _no_ldj(x)

    def decode(self, x: Tensor) -> Tensor:
        """Binary values, or probabilities, in [0, 1] -> codes: to look at, not what went in."""
        return Scale(self.levels).decode(x)


@dataclass(frozen=True)
class Scale:
    """Codes -> real numbers in [0, 1], code / (levels - 1). The numbers stay discrete, so ldj is 0.

    For models of discrete data (or decoders that read a pixel as a probability). A *density* must
    not be fitted to these values, it could be made infinite at each of them: dequantise instead.
    """

    levels: int = 256

    def encode(self, x: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Codes (B, ...) -> (float32 in [0, 1], zeros (B,)). The generator is not used."""
        _require_codes(x, self.levels)
        return x.to(torch.float32) / (self.levels - 1), _no_ldj(x)

    def decode(self, x: Tensor) -> Tensor:
        """The nearest code; values outside [0, 1] go to the end of the scale."""
        return (x * (self.levels - 1)).round().clamp(0, self.levels - 1).to(torch.uint8)


@dataclass(frozen=True)
class Dequantise:
    """Codes -> (code + u) / levels in (0, 1), u uniform.

    Uria, Murray & Larochelle 2013; as a bound, Theis, van den Oord & Bethge 2016, section 3.1.

    ldj = -D log(levels), D elements: a density on the unit cube, seen on the scale of codes, where
    each code is a cell of volume 1.

    u is drawn from the midpoints of a grid of 2**12 cells, not from every float32 below 1: (200 +
    0.99999994) / 256 rounds up to code 201, and `decode` would be wrong for one element in some ten
    thousands. The grid keeps a margin that float32 respects, also through `Logit`; as quadrature
    over a code's cell, its error is of order 2**-24.
    """

    levels: int = 256

    def encode(self, x: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Codes (B, ...) -> (float32 in (0, 1), (B,) nats)."""
        _require_codes(x, self.levels)
        u = ((_uniform(x, generator) * _GRID).floor() + 0.5) / _GRID
        return (x + u) / self.levels, _no_ldj(x) - x[:1].numel() * math.log(self.levels)

    def decode(self, x: Tensor) -> Tensor:
        """The code whose cell x lies in; values outside [0, 1) go to the end of the scale."""
        return (x * self.levels).floor().clamp(0, self.levels - 1).to(torch.uint8)


_GRID = 2**12  # cells of the dequantisation noise; margin to the next code: 2**-13 of a level


@dataclass(frozen=True)
class Logit:
    """[0, 1] -> R, logit(alpha + (1 - 2 alpha) x), for models of unbounded values.

    Dinh, Sohl-Dickstein & Bengio 2017, section 4.1.

    With s = alpha + (1 - 2 alpha) x, ldj is the sum over elements of

        log(1 - 2 alpha) - log s - log(1 - s)

    alpha in (0, 1/2) keeps x = 0 and x = 1 finite; papers use 0.05 (CIFAR) or 1e-6 (MNIST). The
    interval shrinks at both ends, hence the 2: without it bits per dimension come out wrong.
    """

    alpha: float = 0.05

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 0.5:
            raise DataError(f"Logit's alpha is {self.alpha}; it must lie between 0 and 0.5, both excluded.")

    def encode(self, x: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Real (B, ...) in [0, 1] -> (real (B, ...), (B,) nats), in x's floating type.

        The generator is not used.
        """
        shrink = 1 - 2 * self.alpha
        log_s = (self.alpha + shrink * x).log()
        # Not log(1 - s), which loses digits where s is close to 1.
        log_1_minus_s = (self.alpha + shrink * (1 - x)).log()
        ldj = math.log(shrink) - log_s - log_1_minus_s
        return log_s - log_1_minus_s, ldj.flatten(1).sum(1)

    def decode(self, x: Tensor) -> Tensor:
        """Real (B, ...) -> real (B, ...), in [0, 1] for everything that `encode` can produce."""
        return (x.sigmoid() - self.alpha) / (1 - 2 * self.alpha)


class Compose:
    """Several preprocessings, the first one first; log-determinants add up.

    `decode` undoes them, the last one first.
    """

    def __init__(self, *stages: Preprocess) -> None:
        self.stages = stages

    def encode(self, x: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Codes (B, ...) -> (what the model sees (B, ...), (B,) nats)."""
        ldj = _no_ldj(x)
        for stage in self.stages:
            x, more = stage.encode(x, generator)
            ldj = ldj + more
        return x, ldj

    def decode(self, x: Tensor) -> Tensor:
        """What the model sees (B, ...) -> codes (B, ...)."""
        for stage in reversed(self.stages):
            x = stage.decode(x)
        return x

    def __repr__(self) -> str:
        return f"Compose({', '.join(map(repr, self.stages))})"


def bits_per_dim(log_prob_nats: Tensor, dims: int) -> Tensor:
    """Log-probability of codes in nats -> bits per dimension, -log P / (dims log 2); any shape.

    log_prob_nats must include the preprocessing's ldj; dims is the number of elements of one
    example (`Data.dims`). Uniform bytes under the uniform model give exactly 8.
    """
    return -log_prob_nats / (dims * math.log(2))


def _require_codes(x: Tensor, levels: int) -> None:
    if x.is_floating_point() or x.is_complex() or x.dtype == torch.bool:
        raise DataError(
            f"Expected integer codes 0..{levels - 1}, got {x.dtype}: preprocessing starts from the "
            "data as loaded (uint8), and only once."
        )


def _uniform(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Uniform float32 in [0, 1), shaped and placed like x, from a generator on any device."""
    device = x.device if generator is None else generator.device
    return torch.rand(x.shape, generator=generator, device=device).to(x.device)


def _no_ldj(x: Tensor) -> Tensor:
    return torch.zeros(len(x), device=x.device)
