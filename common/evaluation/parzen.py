"""Parzen window estimates: a log-likelihood for models that have none, to be believed in few dimensions only.

Samples y_1 ... y_M of a model get a Gaussian window each, and examples the density

    log 1/M sum_m N(x; y_m, sigma^2 I)

whose one width sigma is chosen on validation examples (Breuleux, Bengio & Vincent 2009). It is the exact log-density of
another model than the one that made the samples, and ranks models wrongly: Theis, van den Oord & Bethge 2016, section
3.5, show it, and so does `projects/evaluation_pitfalls`.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from common.errors import ConfigError, DataError

WIDTHS = tuple(10 ** (i / 27 - 1) for i in range(28))
"""From 0.1 to 1 in equal ratios, for pixels in [0, 1]: the range of Goodfellow et al. 2014, more finely."""


def parzen_log_density(x: Tensor, y: Tensor, sigma: float) -> Tensor:
    """Log-densities of examples x (B, D) under windows around samples y (M, D): (B,) nats, float64.

    Raises:
        ConfigError: a width that is not positive.
        DataError: no samples, examples of another size, or a number that is not finite.
    """
    return _log_densities(x, y, [sigma])[0]


def parzen_estimate(
    x: Tensor, y: Tensor, validation: Tensor, *, widths: Sequence[float] = WIDTHS
) -> tuple[Tensor, float]:
    """The estimate as published tables have it: the width by the mean over validation examples, then x.

    Args:
        x: (B, D) test examples.
        y: (M, D) samples of the model.
        validation: (V, D) examples that are neither test examples nor what made the samples.
        widths: those that are tried. The best of them at either end of the list is no optimum: widen it.

    Returns:
        (B,) nats, float64, and the width.

    Raises:
        ConfigError, DataError: as `parzen_log_density`; or there are no widths, or no validation examples.
    """
    if not widths or len(validation) == 0:
        raise ConfigError("a window's width is chosen among some, on some validation examples: there are none.")
    best = widths[int(_log_densities(validation, y, widths).mean(1).argmax())]
    return parzen_log_density(x, y, best), best


def k_means(x: Tensor, y: Tensor, passes: int) -> Tensor:
    """Lloyd's algorithm: centres (M, D) of examples x (N, D), from centres y to begin with.

    A centre that no example is nearest to stays where it is.
    """
    for _ in range(passes):
        half = y.square().sum(1) / 2
        nearest = torch.cat([(some @ y.T - half).argmax(1) for some in torch.split(x, 2000)])
        count = torch.bincount(nearest, minlength=len(y))[:, None]
        sums = torch.zeros_like(y).index_add_(0, nearest, x)
        y = torch.where(count > 0, sums / count.clamp(min=1), y)
    return y


def _log_densities(x: Tensor, y: Tensor, widths: Sequence[float], chunk: int = 2000) -> Tensor:
    """(S, B) for S widths; the squared distances, the costly part, are worked out once."""
    if any(not sigma > 0 for sigma in widths):
        raise ConfigError(f"sigma = {min(widths)}: a window has a positive width.")
    if len(y) == 0 or x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise DataError(
            f"windows around samples {tuple(y.shape)} for examples {tuple(x.shape)}: both are (N, D), N > 0."
        )
    x, y = x.double(), y.double()
    if not (x.isfinite().all() and y.isfinite().all()):
        raise DataError("a sample or an example has a value that is not a finite number.")
    # Squared distances by products lose digits with the distance from the origin, which does not matter to them.
    x, y = x - y.mean(0), y - y.mean(0)
    total = torch.full((len(widths), len(x)), -math.inf, dtype=torch.float64)
    for some in torch.split(y, chunk):
        squares = (x.square().sum(1)[:, None] + some.square().sum(1) - 2 * x @ some.T).clamp(min=0)
        for s, sigma in enumerate(widths):
            total[s] = torch.logaddexp(total[s], torch.logsumexp(squares / (-2 * sigma**2), 1))
    constants = [math.log(len(y)) + x.shape[1] * (math.log(sigma) + 0.5 * math.log(2 * math.pi)) for sigma in widths]
    return total - torch.tensor(constants, dtype=torch.float64)[:, None]
