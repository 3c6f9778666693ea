"""2-D densities that are known exactly: to see a model at work, or to catch it claim too much.

A model's mean log-density over samples of `density(name)` can exceed `-entropy` only by chance:
more is a mistake.

    ring8         8 Gaussians on a circle (as in Metz et al. 2017)
    grid25        25 Gaussians on a 5 x 5 grid (as in Srivastava et al. 2017)
    banana        a Gaussian bent by a warp that preserves area
    checkerboard  uniform on the 8 black squares of a 4 x 4 board
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from common.errors import DataError, nearest


@dataclass(frozen=True, repr=False)
class ToyDensity:
    """A density on the plane with everything that can be known of it.

    extent: (low, high) of both axes; holds all but less than 1e-6 of the mass, and is what to plot.
    """

    name: str
    extent: tuple[float, float]
    _sample: Callable[[int, torch.Generator | None], Tensor] = field(compare=False)
    _log_prob: Callable[[Tensor], Tensor] = field(compare=False)
    _entropy: Callable[[], float] = field(compare=False)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n independent points: float32 (n, 2), on the CPU. Raises DataError for a negative n."""
        if n < 0:
            raise DataError(f"Cannot draw {n} samples.")
        return self._sample(n, generator).to(torch.float32)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density in nats at points (B, 2) -> (B,), in x's type, on its device.

        -inf off the support.

        Raises DataError for another shape.
        """
        if x.ndim != 2 or x.shape[1] != 2:
            raise DataError(f"Expected points of shape (B, 2), got {tuple(x.shape)}.")
        return self._log_prob(x)

    @cached_property
    def entropy(self) -> float:
        """Differential entropy in nats.

        In closed form for banana and checkerboard; by quadrature within 1e-9 for the mixtures.
        """
        return self._entropy()

    def __repr__(self) -> str:
        return f"ToyDensity({self.name!r}, entropy {self.entropy:.4f} nats)"


def names() -> list[str]:
    """The names that `density` knows."""
    return sorted(_DENSITIES)


def density(name: str) -> ToyDensity:
    """A density by name, one of `names()`. Raises DataError for an unknown name."""
    if name not in _DENSITIES:
        choices = ", ".join(names())
        raise DataError(f"There is no density {name!r}.{nearest(name, names())} There are: {choices}.")
    return _DENSITIES[name]


def mixture(name: str, centres: Tensor, std: float) -> ToyDensity:
    """Equally weighted round Gaussians. centres: (K, 2); std: the standard deviation of each."""
    centres = centres.to(torch.float64)

    def sample(n: int, generator: torch.Generator | None) -> Tensor:
        which = torch.randint(len(centres), (n,), generator=generator)
        noise = torch.randn(n, 2, generator=generator, dtype=torch.float64)
        return centres[which] + std * noise

    def log_prob(x: Tensor) -> Tensor:
        offset = (x[:, None] - centres.to(x)) / std  # (B, K, 2)
        each = -0.5 * offset.square().sum(2) - math.log(2 * math.pi * std**2)
        return each.logsumexp(1) - math.log(len(centres))

    def entropy() -> float:
        # E[-log p], one component at a time. For integrands as smooth and as quickly gone as a
        # Gaussian's, the plain sum over a regular grid is exact to rounding; beyond 9 deviations
        # lies 1e-18 of the mass.
        t = torch.linspace(-9, 9, 121, dtype=torch.float64)
        points = std * torch.cartesian_prod(t, t)
        weights = (-0.5 * (points / std).square().sum(1)).softmax(0)
        means = [(weights * log_prob(centre + points)).sum() for centre in centres]
        return -float(torch.stack(means).mean())

    reach = float(centres.abs().max()) + 6 * std
    return ToyDensity(name, (-reach, reach), sample, log_prob, entropy)


def ring8(radius: float = 2.0, std: float = 0.1) -> ToyDensity:
    """8 Gaussians at equal angles on a circle, the first one at angle 0."""
    angle = torch.arange(8, dtype=torch.float64) * (2 * math.pi / 8)
    return mixture("ring8", radius * torch.stack([angle.cos(), angle.sin()], 1), std)


def grid25(spacing: float = 2.0, std: float = 0.1) -> ToyDensity:
    """25 Gaussians on the grid {-2, -1, 0, 1, 2}² times `spacing`."""
    axis = spacing * torch.arange(-2, 3, dtype=torch.float64)
    return mixture("grid25", torch.cartesian_prod(axis, axis), std)


def banana(width: float = 1.0, height: float = 0.3, bend: float = 0.5) -> ToyDensity:
    """x1 = width z1, x2 = height z2 + bend (x1² - width²), z standard normal.

    The warp is a shear, its Jacobian is 1 everywhere, so the entropy is the Gaussian's: log(2 pi e
    width height).
    """

    def sample(n: int, generator: torch.Generator | None) -> Tensor:
        z = torch.randn(n, 2, generator=generator, dtype=torch.float64)
        x1 = width * z[:, 0]
        return torch.stack([x1, height * z[:, 1] + bend * (x1.square() - width**2)], 1)

    def log_prob(x: Tensor) -> Tensor:
        x1, x2 = x.unbind(1)
        z1, z2 = x1 / width, (x2 - bend * (x1.square() - width**2)) / height
        return -0.5 * (z1.square() + z2.square()) - math.log(2 * math.pi * width * height)

    exact = math.log(2 * math.pi * math.e * width * height)
    reach = bend * width**2 * (5**2 - 1) + 5 * height  # x1 at 5 deviations, along the bend
    return ToyDensity("banana", (-reach, reach), sample, log_prob, lambda: exact)


def checkerboard(square: float = 2.0) -> ToyDensity:
    """Uniform on 8 of the 16 squares of a board around the origin; `square` is a square's side.

    The area is 8 square², so the entropy is log(8 square²), and the log-density minus that, or
    -inf.
    """
    exact = math.log(8 * square**2)

    def sample(n: int, generator: torch.Generator | None) -> Tensor:
        column = torch.randint(4, (n,), generator=generator)
        row = 2 * torch.randint(2, (n,), generator=generator) + column % 2
        within = torch.rand(n, 2, generator=generator, dtype=torch.float64)
        return square * (torch.stack([column, row], 1) + within - 2)

    def log_prob(x: Tensor) -> Tensor:
        place = (x / square + 2).floor()  # column and row, 0..3 on the board
        on_board = ((place >= 0) & (place <= 3)).all(1)
        black = place.sum(1).remainder(2) == 0
        return torch.full_like(x[:, 0], -exact).masked_fill(~(on_board & black), -math.inf)

    return ToyDensity("checkerboard", (-2 * square, 2 * square), sample, log_prob, lambda: exact)


_DENSITIES = {toy.name: toy for toy in (ring8(), grid25(), banana(), checkerboard())}
