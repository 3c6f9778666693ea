"""A probe of samplers: given an ideal denoiser, do they sample its distribution?"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from common.errors import ConfigError
from common.probes.result import Findings, ProbeResult, Z, rounding

Denoiser = Callable[[Tensor, float], Tensor]
"""(x (B, ...), sigma) -> the expected x0 given x = x0 + sigma * noise; `common.nn.Denoiser`."""

Sampler = Callable[[Denoiser, Tensor, int, torch.Generator], Tensor]
"""(denoiser, standard normal noise (B, ...), steps, generator) -> samples (B, ...)."""

MEAN = (0.1, -0.05)
"""Of the distribution that is sampled: two dimensions, near the middle of [-1, 1]."""

SPREAD = 0.25
"""Its standard deviation, in both: few samples come near -1 or 1, where a sampler may clip."""


@dataclass
class _Ideal:
    """The exact denoiser of N(mean, spread^2), which remembers what it was asked.

    Given x = x0 + sigma * noise, x0 is normal with mean  mean + spread^2 / (spread^2 + sigma^2) (x - mean).
    """

    mean: Tensor
    spread: float
    levels: list[float] = field(default_factory=list)
    start: Tensor | None = None  # the first x
    # Of (x - mean) / sigma, at every question: its mean square, and how far it is from the first at most.
    square: list[float] = field(default_factory=list)
    moved: list[float] = field(default_factory=list)

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        levels = torch.as_tensor(sigma, dtype=torch.float64).detach().flatten()
        level = float(levels[0]) if bool((levels == levels[0]).all()) else math.nan
        mean = self.mean.to(x)
        away = x.detach() - mean
        if self.start is None:
            self.start, self.first = x.detach().clone(), away / level
        self.levels.append(level)
        if self.spread == 0:
            self.square.append(float(away.double().square().mean()) / level**2 if level else math.inf)
            self.moved.append(float((away / level - self.first).abs().max()))
        return mean + self.spread**2 / (self.spread**2 + level**2) * (x - mean)


@dataclass
class _Subject:
    """The sampler, as the probe calls it."""

    sample: Sampler
    found: Findings
    mean: Tensor

    def __call__(self, spread: float, noise: Tensor, steps: int, seed: int) -> tuple[Tensor, _Ideal]:
        """Samples, as (B, 2) float64, of N(mean, spread^2); and what the denoiser was asked."""
        ideal, given = _Ideal(self.mean, spread), noise.clone()
        with torch.no_grad():
            x = self.sample(ideal, given, steps, torch.Generator().manual_seed(seed + 1_000_000))  # not the noise's
        self.found.unchanged(noise, given, "the sampler")
        if not isinstance(x, Tensor) or x.shape != noise.shape:
            raise self.found.broken(f"for noise {tuple(noise.shape)} it returns {_shape(x)}, not as many samples")
        if not ideal.levels:
            raise self.found.broken("it never asks the denoiser")
        if not all(math.isfinite(level) and level > 0 for level in ideal.levels):
            raise self.found.broken("a question must be about one noise level above 0, the same for the whole batch")
        if not x.isfinite().all():
            raise self.found.broken("a sample is not a finite number")
        return x.double(), ideal


def sampler(
    sample: Sampler,
    *,
    steps: int,
    order: int = 1,
    sigma_max: float | None = None,
    marginals: bool = True,
    examples: int = 20_000,
    seed: int = 0,
) -> ProbeResult:
    """An ideal denoiser is sampled exactly, at the solver's order; timesteps chain; no noise after the last step.

    Of a single point, whose denoiser always answers with that point, any number of steps must give

        the point itself        noise that is added in the last step stays in the samples, and so does noise that is
                                left where the last step does not end at sigma = 0
        (x - point) / sigma     at every question: the noise. Without randomness it is the same all the way, to
                                rounding; with it, it is standard normal, to `Z` standard errors of its variance.
                                A step that ends at another level than the next begins at changes its size.

    Of N(mean, spread^2), each time the steps are halved in size the error falls by 2^order or nearly so. Without
    randomness that is the error of a sample, against the exact solution of the probability flow from where the sampler
    began, mean + spread (x - mean) / sqrt(spread^2 + sigma^2), and allowed is a fall by 2^(order - 1/4) or more. With
    it, it is the error of the samples' variance, and `Z` standard errors are allowed on top.
    Also: sigma never grows on the way, a question is about one level, and the caller's noise is left alone.

    Cost: 9 `steps` questions about 64 examples, and with randomness 7 `steps` about `examples`.

    Args:
        sample: draws as many samples as there is noise, in so many steps; everything random from the generator.
            It may work in any coordinates; what it asks is (x0 + sigma * noise, sigma), at any levels.
        steps: where the order is to be seen already: some hundred for first-order solvers. The sampler is also asked
            for 2 and 4 times as many, so a schedule of T levels allows T / 4.
        order: of the solver; 1 for DDPM and DDIM, 2 for Heun's method.
        sigma_max: the level at which it has to begin; not looked at if None.
        marginals: whether x = x0 + sigma * noise holds all the way. It does not where more noise is added than a step
            accounts for (DDPM with sigma_t^2 = beta_t); it is then not looked at.
        examples: for samplers with randomness.

    Raises:
        ConfigError: fewer than two steps, or an order below 1.
    """
    if steps < 2 or order < 1:
        raise ConfigError(f"steps = {steps}, order = {order}: the probe needs two or more steps, of order 1 or higher.")
    statement = "an ideal denoiser is sampled exactly, at the solver's order; timesteps chain; no noise at the end"
    with Findings("sampler", statement) as found:
        mean = torch.tensor(MEAN, dtype=torch.float64)
        subject = _Subject(sample, found, mean)
        noise = torch.randn(64, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        random = not torch.equal(subject(SPREAD, noise, steps, seed)[0], subject(SPREAD, noise, steps, seed + 1)[0])
        if random:
            noise = torch.randn(examples, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        found.numbers |= {"steps": steps, "order": order, "randomness": "yes" if random else "no"}
        _point(subject, noise, steps, sigma_max, seed)
        if marginals:
            _chain(subject, noise, steps, random, seed)
        _order(subject, noise, steps, order, random, seed)
    return found.result()


def _point(subject: _Subject, noise: Tensor, steps: int, sigma_max: float | None, seed: int) -> None:
    """A single point is returned, from the highest level down."""
    found = subject.found
    x, ideal = subject(0.0, noise[:64], steps, seed)
    left = float((x - subject.mean).abs().max())
    found.numbers["point_error"] = left
    found.expect(
        left <= rounding(torch.float32, 1),
        f"samples of a single point are up to {left:.3g} away from it: noise is added at the end, or left",
    )
    grows = next(((a, b) for a, b in itertools.pairwise(ideal.levels) if b > a * (1 + 1e-9)), None)
    if grows:
        found.expect(False, f"sigma grows on the way, from {grows[0]:.4g} to {grows[1]:.4g}")
    found.numbers |= {"first_sigma": ideal.levels[0], "last_sigma": ideal.levels[-1]}
    if sigma_max is not None:
        found.expect(
            abs(ideal.levels[0] - sigma_max) <= 1e-4 * sigma_max,
            f"it begins at sigma = {ideal.levels[0]:.6g}, not at the highest level, {sigma_max:.6g}",
        )


def _chain(subject: _Subject, noise: Tensor, steps: int, random: bool, seed: int) -> None:
    """At every question, what is above the point is noise of the level that is asked about."""
    found = subject.found
    _, ideal = subject(0.0, noise, steps, seed)
    assert ideal.start is not None
    if random:  # of the mean square, in standard errors
        off = [abs(square - 1) / math.sqrt(2 / noise.numel()) for square in ideal.square]
        allowed, unit = Z, "standard errors of its variance"
    else:
        off, unit = ideal.moved, "per unit of noise"
        allowed = rounding(torch.float32, 1) + rounding(ideal.start.dtype, 1 / min(ideal.levels))
    where = max(range(len(off)), key=lambda i: off[i])
    worst = off[where]
    found.numbers["chain_error"] = worst
    found.expect(
        worst <= allowed,
        f"at question {where + 1} of {len(ideal.levels)}, sigma = {ideal.levels[where]:.4g}, x has not the noise of "
        f"that level (off by {worst:.3g} {unit}): a step ends where the next does not begin",
    )


def _order(subject: _Subject, noise: Tensor, steps: int, order: int, random: bool, seed: int) -> None:
    """Smaller steps, smaller errors."""
    found = subject.found
    errors, slack = [], 0.0
    for times in (1, 2, 4):
        x, ideal = subject(SPREAD, noise, times * steps, seed + times)
        if random:
            errors.append(abs(float((x - subject.mean).square().mean()) / SPREAD**2 - 1))
            slack = Z * math.sqrt(2 / x.numel())
        else:
            assert ideal.start is not None
            away = (ideal.start.double() - subject.mean) / math.sqrt(SPREAD**2 + ideal.levels[0] ** 2)
            errors.append(float((x - subject.mean - SPREAD * away).abs().max()) / SPREAD)
    floor = slack + rounding(torch.float32, 1)  # below it, nothing is left to fall
    for times, error in zip((1, 2, 4), errors, strict=True):
        found.numbers[f"error_{times * steps}"] = error
    for half, (before, after) in zip((2, 4), itertools.pairwise(errors), strict=True):
        if not random and after > floor:
            found.numbers[f"order_{half * steps}"] = math.log2(before / after) if before > 0 else math.nan
        found.expect(
            after <= (before + slack) / 2 ** (order - 0.25) + floor,
            f"with {half * steps} steps the {'variance' if random else 'samples'} of a normal distribution "
            f"{'is' if random else 'are'} off by {after:.3g}, with half as many by {before:.3g}: a solver of order "
            f"{order} would be {2**order} times nearer",
        )


def _shape(x: object) -> str:
    return f"shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
