"""A probe of noise schedules: does noise win in the end, and are all predictions of a network the same prediction?"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from common.errors import ConfigError, nearest
from common.probes.result import Findings, ProbeResult

Convert = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(x_t (B, D), what is known (B, D), t (B,) int64) -> what is asked (B, D)."""

TERMINAL = 1e-3
"""What alpha_bar_T must stay below: a thousand betas from 1e-4 to 0.02 leave 4e-5, a hundred of them 0.36."""

TOLERANCE = 1e-8
"""Relative to max(1, |value|). The worst conditioned conversion of common schedules magnifies float64's 1e-16 by 1e4;
tables kept in float32 are off by 1e-5 and more there."""


def _true_predictions(abar: Tensor, before: Tensor, x_0: Tensor, eps: Tensor) -> dict[str, Tensor]:
    """What a perfect network says, by the name of the prediction; abar_t and abar_{t-1} are (T, 1)."""
    x_t = abar.sqrt() * x_0 + (1 - abar).sqrt() * eps
    alpha = abar / before
    return {
        "eps": eps,
        "x0": x_0,
        "v": abar.sqrt() * eps - (1 - abar).sqrt() * x_0,
        "score": -eps / (1 - abar).sqrt(),
        "mu": (before.sqrt() * (1 - alpha) * x_0 + alpha.sqrt() * (1 - before) * x_t) / (1 - abar),
    }


def schedule(
    alpha_bar: Tensor,
    *,
    q_sample: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None,
    to_x0: Mapping[str, Convert] | None = None,
    from_x0: Mapping[str, Convert] | None = None,
    first: int = 1,
    terminal: float = TERMINAL,
) -> ProbeResult:
    """alpha_bar_T is small enough, monotone, float64; eps, x0, v, score and mu convert into each other exactly.

        x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps             (Ho, Jain & Abbeel 2020, eq. 4)

        eps     the noise                       v       sqrt(alpha_bar_t) eps - sqrt(1 - alpha_bar_t) x_0
        x0      what is below it                score   -eps / sqrt(1 - alpha_bar_t)
        mu      the mean of q(x_{t-1} | x_t, x_0), eq. 7

    At every t, x_0 and eps are drawn, and what a perfect network would predict is worked out from them by these
    formulas; the project's conversions must lead from there to x_0, and from x_0 there. So two conversions that are
    wrong alike are found too, which a round trip would not.
    Also: alpha_bar decreases strictly from below 1, and was computed in float64, not cast to it; no conversion
    modifies what it is given. Cost: nothing to speak of.

    Args:
        alpha_bar: (T,) float64, of the schedule's levels from the least noise to the most.
        q_sample: (x_0 (T, D), t (T,), eps (T, D)) -> x_t, the project's eq. 4; not looked at if None.
        to_x0: prediction ("eps", "v", "score", "mu") -> the project's (x_t, prediction, t) -> x_0.
        from_x0: prediction -> the project's (x_t, x_0, t) -> prediction.
        first: how the project numbers the least noisy level, 1 or 0.
        terminal: what alpha_bar_T must stay below.

    Raises:
        ConfigError: a prediction of another name.
    """
    names = ("eps", "x0", "v", "score", "mu")
    for name in [*(to_x0 or {}), *(from_x0 or {})]:
        if name not in names:
            raise ConfigError(f"no prediction '{name}' is known.{nearest(name, names)} Known: {', '.join(names)}.")
    statement = "alpha_bar_T is small enough, monotone, float64; predictions convert into each other exactly"
    with Findings("schedule", statement) as found:
        if alpha_bar.dim() != 1 or len(alpha_bar) < 2:
            raise found.broken(f"alpha_bar has shape {tuple(alpha_bar.shape)}; (T,), T >= 2, is expected")
        abar = alpha_bar.detach().cpu().to(torch.float64)
        last = float(abar[-1])
        found.numbers |= {"T": len(abar), "alpha_bar_1": float(abar[0]), "alpha_bar_T": last}
        found.expect(
            alpha_bar.dtype == torch.float64 and not torch.equal(abar, abar.float().double()),
            "alpha_bar is not computed in float64: products of many factors lose digits",
        )
        before = torch.cat([abar.new_ones(1), abar[:-1]])
        if not bool((abar < before).all()) or not last > 0:
            worst = int((abar - before).nan_to_num(nan=torch.inf).argmax())
            raise found.broken(
                f"alpha_bar does not decrease strictly between 1 and 0: at step {worst + first} it goes from "
                f"{float(before[worst]):.6g} to {float(abar[worst]):.6g}"
            )
        found.expect(
            last < terminal,
            f"alpha_bar_T = {last:.3g}, not below {terminal:g}: the last level still holds {last**0.5:.2g} of the "
            "signal, and sampling begins from noise that the network never saw",
        )
        generator = torch.Generator().manual_seed(0)
        x_0, eps = (torch.randn(len(abar), 5, generator=generator, dtype=torch.float64) for _ in range(2))
        t = torch.arange(first, first + len(abar))
        x_t = abar[:, None].sqrt() * x_0 + (1 - abar[:, None]).sqrt() * eps
        truth = _true_predictions(abar[:, None], before[:, None], x_0, eps)

        def compare(what: str, function: Convert, given: tuple[Tensor, Tensor, Tensor], wanted: Tensor) -> None:
            kept = [each.clone() for each in given]
            got = function(*given)
            for a, b in zip(kept, given, strict=True):
                found.unchanged(a, b, what)
            if not isinstance(got, Tensor) or got.shape != wanted.shape:
                raise found.broken(f"{what} does not give one value for each of x_t's")
            error = (got.detach().double().cpu() - wanted).abs() / wanted.abs().clamp_min(1)
            largest = float(error.max())
            found.numbers[what] = largest
            found.expect(
                largest <= TOLERANCE,
                f"{what} is off by up to {largest:.3g} (relative to max(1, |value|)), "
                f"at t = {int(error.amax(1).nan_to_num(nan=torch.inf).argmax()) + first} most",
            )

        if q_sample is not None:
            compare("q_sample", q_sample, (x_0, t, eps), x_t)
        for name, convert in (to_x0 or {}).items():
            compare(f"{name} -> x0", convert, (x_t, truth[name], t), x_0)
        for name, convert in (from_x0 or {}).items():
            compare(f"x0 -> {name}", convert, (x_t, x_0, t), truth[name])
    return found.result()
