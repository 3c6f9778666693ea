"""The probe of schedules: right ones pass, each known mistake is found."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from common.errors import ConfigError
from common.probes import schedule

LINEAR = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
COSINE = torch.cos((torch.arange(1, 1001, dtype=torch.float64) / 1001 + 0.008) / 1.008 * torch.pi / 2).square()


def parts(abar: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """alpha_t and sigma_t of x_t = alpha_t x_0 + sigma_t eps, (B, 1)."""
    at = abar[t - 1][:, None]
    return at.sqrt(), (1 - at).sqrt()


def conversions(abar: Tensor) -> tuple[dict[str, Callable[..., Tensor]], dict[str, Callable[..., Tensor]]]:
    """To x_0 and from it, written apart from the probe's formulas: by solving for what is asked."""

    def step(t: Tensor) -> tuple[Tensor, Tensor]:
        before = torch.cat([torch.ones(1, dtype=torch.float64), abar])[t - 1][:, None]
        return before, 1 - abar[t - 1][:, None] / before

    def mu(x_t: Tensor, x_0: Tensor, t: Tensor) -> Tensor:
        """Bayes: the precisions of q(x_t | x_{t-1}) and q(x_{t-1} | x_0) add up (t = 1: x_0 itself)."""
        before, beta = step(t)
        precise = (1 - before).clamp_min(1e-30)
        weight = (1 - beta) / beta + 1 / precise
        return (((1 - beta).sqrt() / beta) * x_t + before.sqrt() / precise * x_0) / weight

    def x0_of_mu(x_t: Tensor, given: Tensor, t: Tensor) -> Tensor:
        zero, one = mu(x_t, torch.zeros_like(x_t), t), mu(x_t, torch.ones_like(x_t), t)
        return (given - zero) / (one - zero)

    def of(name: str) -> dict[str, Callable[..., Tensor]]:
        def eps_of(x_t: Tensor, x_0: Tensor, t: Tensor) -> Tensor:
            alpha, sigma = parts(abar, t)
            return (x_t - alpha * x_0) / sigma

        def x0_of_eps(x_t: Tensor, eps: Tensor, t: Tensor) -> Tensor:
            alpha, sigma = parts(abar, t)
            return (x_t - sigma * eps) / alpha

        if name == "eps":
            return {"to": x0_of_eps, "from": eps_of}
        if name == "score":
            return {
                "to": lambda x_t, s, t: x0_of_eps(x_t, -parts(abar, t)[1] * s, t),
                "from": lambda x_t, x_0, t: -eps_of(x_t, x_0, t) / parts(abar, t)[1],
            }
        if name == "v":  # a rotation by the angle whose cosine is alpha_t
            return {
                "to": lambda x_t, v, t: parts(abar, t)[0] * x_t - parts(abar, t)[1] * v,
                "from": lambda x_t, x_0, t: (parts(abar, t)[0] * x_t - x_0) / parts(abar, t)[1],
            }
        return {"to": x0_of_mu, "from": mu}

    names = ("eps", "v", "score", "mu")
    return {n: of(n)["to"] for n in names}, {n: of(n)["from"] for n in names}


def q_sample(abar: Tensor) -> Callable[..., Tensor]:
    return lambda x_0, t, eps: parts(abar, t)[0] * x_0 + parts(abar, t)[1] * eps


@pytest.mark.parametrize("abar", [LINEAR, COSINE], ids=["linear", "cosine"])
def test_right_schedules_pass(abar: Tensor) -> None:
    to_x0, from_x0 = conversions(abar)
    result = schedule(abar, q_sample=q_sample(abar), to_x0=to_x0, from_x0=from_x0)
    assert result.passed, result
    assert result.numbers["T"] == 1000


def test_steps_may_be_numbered_from_zero() -> None:
    assert schedule(LINEAR, q_sample=lambda x_0, t, eps: q_sample(LINEAR)(x_0, t + 1, eps), first=0).passed
    assert not schedule(
        LINEAR[:], q_sample=lambda x_0, t, eps: q_sample(LINEAR)(x_0, t, eps), first=0, terminal=1
    ).passed


@pytest.mark.parametrize(
    ("abar", "words"),
    [
        (torch.cumprod(1 - torch.linspace(1e-4, 0.02, 100, dtype=torch.float64), 0), "still holds 0.6"),  # pitfall 28
        (torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0), "float64"),
        (torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0).double(), "float64"),
        (LINEAR.flip(0), "decrease"),
        (torch.cat([LINEAR[:500], LINEAR[499:]]), "decrease"),
        (torch.cat([LINEAR.new_ones(1), LINEAR]), "decrease"),
        (torch.cat([LINEAR, LINEAR.new_zeros(1)]), "decrease"),
        (LINEAR * torch.nan, "decrease"),
        (LINEAR[None], "shape"),
    ],
    ids=["unscaled", "float32", "cast", "backwards", "level", "one", "zero", "nan", "shape"],
)
def test_wrong_schedules_are_found(abar: Tensor, words: str) -> None:
    result = schedule(abar)
    assert not result.passed
    assert words in result.detail


def test_scaling_by_a_thousand_over_the_steps_is_enough() -> None:
    assert schedule(torch.cumprod(1 - torch.linspace(1e-4, 0.02, 100, dtype=torch.float64) * 10, 0)).passed


def test_wrong_conversions_are_found() -> None:
    to_x0, from_x0 = conversions(LINEAR)
    shifted = torch.cat([LINEAR.new_ones(1), LINEAR[:-1]])  # abar_{t-1} for abar_t

    def float32(x_t: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        return to_x0["eps"](x_t.float(), eps.float(), t)

    def in_place(x_t: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        return to_x0["eps"](x_t, eps, t) + 0 * x_t.mul_(1.0).add_(1.0)

    wrong = {
        "v's sign": schedule(LINEAR, to_x0={"v": lambda x, v, t: to_x0["v"](x, -v, t)}),
        "v's sign, both ways": schedule(
            LINEAR,
            to_x0={"v": lambda x, v, t: to_x0["v"](x, -v, t)},
            from_x0={"v": lambda x, x_0, t: -from_x0["v"](x, x_0, t)},
        ),
        "score for eps": schedule(LINEAR, to_x0={"score": to_x0["eps"]}),
        "off by one": schedule(LINEAR, to_x0={"eps": lambda x, e, t: to_x0["eps"](x, e, (t - 1).clamp(1))}),
        "abar_{t-1}": schedule(LINEAR, q_sample=q_sample(shifted)),
        "variance for deviation": schedule(
            LINEAR, q_sample=lambda x, t, e: parts(LINEAR, t)[0] * x + parts(LINEAR, t)[1] ** 2 * e
        ),
        "mu": schedule(LINEAR, from_x0={"mu": lambda x, x_0, t: from_x0["mu"](x, x_0, t) * 1.000001}),
        "one number": schedule(LINEAR, from_x0={"eps": lambda x, x_0, t: x.mean()}),
        "float32": schedule(LINEAR, to_x0={"eps": float32}),
        "in place": schedule(LINEAR, to_x0={"eps": in_place}),
    }
    assert [name for name, result in wrong.items() if result.passed] == []


def test_a_prediction_of_another_name_is_refused() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'score'"):
        schedule(LINEAR, to_x0={"scores": lambda x, s, t: s})
