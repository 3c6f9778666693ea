"""A noise-predicting network behind the denoiser interface."""

import pytest
import torch

from common.errors import ConfigError
from common.nn import EpsilonDenoiser, epsilon_network


def alpha_bar(steps=1000):
    return torch.cumprod(1 - torch.linspace(1e-4, 0.02, steps, dtype=torch.float64), 0)


@pytest.mark.parametrize("t", [1, 2, 500, 1000])
def test_a_perfect_network_gives_back_what_is_below_the_noise(t):
    """By eq. 4 of DDPM: x_t from x0 and noise, a network that knows the noise, and x = x_t / sqrt(abar_t)."""
    abar, seen = alpha_bar(), {}
    generator = torch.Generator().manual_seed(0)
    x0, noise = (torch.randn(4, 3, 5, dtype=torch.float64, generator=generator) for _ in range(2))
    x_t = abar[t - 1].sqrt() * x0 + (1 - abar[t - 1]).sqrt() * noise

    def epsilon(given, times):
        seen["x"], seen["t"] = given, times
        return noise

    denoise = EpsilonDenoiser(epsilon, abar)
    found = denoise(x_t / abar[t - 1].sqrt(), float(denoise.sigmas[t - 1]))
    torch.testing.assert_close(found, x0, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(seen["x"], x_t)  # the network is shown x_t, in its own coordinates,
    assert seen["t"].tolist() == [t] * 4  # and the step that this noise level belongs to


def test_ideal_denoiser_of_a_gaussian():
    """x0 ~ N(m, s^2): the best eps is linear in x_t, and the denoiser is then the posterior mean for every sigma."""
    abar, m, s = alpha_bar(50), 0.3, 0.7

    def epsilon(x_t, times):
        a = abar[times - 1][:, None]
        return (1 - a).sqrt() * (x_t - a.sqrt() * m) / (a * s**2 + 1 - a)

    denoise = EpsilonDenoiser(epsilon, abar)
    x = torch.linspace(-3, 3, 7, dtype=torch.float64)[:, None]
    for sigma in denoise.sigmas:
        exact = (s**2 * x + sigma**2 * m) / (s**2 + sigma**2)
        torch.testing.assert_close(denoise(x, sigma), exact, rtol=1e-9, atol=1e-9)


def test_epsilon_network_is_the_way_back():
    abar = alpha_bar(50)
    there = EpsilonDenoiser(lambda x_t, t: (x_t * t[:, None]).sin(), abar)
    back = epsilon_network(there, abar)
    x_t = torch.linspace(-2, 2, 5, dtype=torch.float64)[:, None]
    for t in (1, 17, 50):
        torch.testing.assert_close(back(x_t, torch.full((5,), t)), (x_t * t).sin(), rtol=1e-9, atol=1e-9)
    with pytest.raises(ConfigError, match="same"):
        back(x_t, torch.tensor([1, 1, 1, 1, 2]))


def test_every_level_is_found_in_float32_too_and_others_are_refused():
    denoise = EpsilonDenoiser(lambda x, t: x, alpha_bar())
    assert [denoise.step_of(s) for s in denoise.sigmas.float()] == list(range(1, 1001))
    between = float((denoise.sigmas[499] + denoise.sigmas[500]) / 2)
    for sigma in (between, 0.0, 1e6, float("nan")):
        with pytest.raises(ConfigError, match="not a noise level"):
            denoise.step_of(sigma)


@pytest.mark.parametrize(
    ("schedule", "says"),
    [
        (alpha_bar().float(), "float64"),
        (alpha_bar()[None], "shape"),
        (alpha_bar().flip(0), "decrease"),
        (torch.tensor([1.0, 0.5], dtype=torch.float64), "decrease"),
        (torch.tensor([0.5, 0.0], dtype=torch.float64), "above 0"),
    ],
)
def test_what_is_no_schedule_is_refused(schedule, says):
    with pytest.raises(ConfigError, match=says):
        EpsilonDenoiser(lambda x, t: x, schedule)
