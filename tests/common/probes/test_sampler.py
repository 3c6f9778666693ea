"""Samplers, right ones and those known to have gone wrong elsewhere."""

import itertools
import math

import pytest
import torch

from common.errors import ConfigError
from common.probes import sampler
from common.probes.result import ProbeResult

T = 400
ABAR = torch.cat([torch.ones(1).double(), (1 - torch.linspace(2.5e-4, 0.05, T).double()).cumprod(0)]).tolist()
SIGMA = [math.sqrt((1 - abar) / abar) for abar in ABAR]


def ddim(wrong: str = "", eta: float = 0.0):
    """Strided sampling of a variance-preserving process, with switches to spoil it."""

    def sample(denoiser, noise, steps, generator):
        if wrong == "the caller's noise":
            noise.mul_(1.0)[0] = 0
        x = noise.clone()
        tau = [T * i // steps for i in range(steps + 1)]
        if wrong == "leading":
            tau = tau[:-1]
        for i in range(len(tau) - 1, 0, -1):
            t, s = tau[i], tau[i - 1]
            if wrong == "does not chain":
                s = max(0, t - T // steps - 1)
            if wrong == "does not end" and i == 1:
                s = 1
            if wrong == "grows" and i == 3:
                denoiser(x / math.sqrt(ABAR[t]), 2 * SIGMA[t])
            level = torch.tensor([SIGMA[t]] * len(x)) if wrong == "a level each" else SIGMA[t]
            if wrong == "levels differ":
                level = torch.linspace(1, 2, len(x))
            if wrong == "float32 levels":
                level = torch.tensor(SIGMA[t], dtype=torch.float32)
            x0 = denoiser(x / math.sqrt(ABAR[t]), level)
            eps = (x - math.sqrt(ABAR[t]) * x0) / math.sqrt(1 - ABAR[t])
            spread = eta * math.sqrt((1 - ABAR[s]) / (1 - ABAR[t]) * (1 - ABAR[t] / ABAR[s]))
            if wrong == "beta":
                spread = math.sqrt(1 - ABAR[t] / ABAR[s]) if i > 1 else 0.0
            if wrong == "noise at the end" and i == 1:
                spread = 0.01
            direction = max(0.0, 1 - ABAR[s] - (0 if wrong == "direction at full length" else spread**2))
            if wrong == "beta":
                direction = 1 - ABAR[s] - (1 - ABAR[s]) / (1 - ABAR[t]) * (1 - ABAR[t] / ABAR[s])
            z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
            x = math.sqrt(ABAR[s]) * x0 + math.sqrt(direction) * eps
            x = x + spread * z if spread else x
        if wrong == "float32":
            return x.float()
        return x * 1.01 if wrong == "scaled" else x[1:] if wrong == "loses one" else x

    return sample


def ode(order: int, wrong: str = ""):
    """Euler's and Heun's method on dx / dsigma = (x - x0) / sigma, x being as large as sigma (Karras et al. 2022)."""

    def sample(denoiser, noise, steps, generator):
        grid = torch.linspace(80 ** (1 / 7), 0.002 ** (1 / 7), steps, dtype=torch.float64) ** 7
        grid = [*grid.tolist(), 0.0]
        x = noise * grid[0]
        for now, then in itertools.pairwise(grid):
            slope = (x - denoiser(x, now)) / now
            ahead = x + (then - now) * slope
            if order == 2 and then > 0:
                second = (ahead - denoiser(ahead, now if wrong == "Heun asks at the old level" else then)) / then
                ahead = x + (then - now) * (slope + second) / 2
            x = ahead
        return x

    return sample


def assert_caught(result: ProbeResult, words: str) -> None:
    assert not result.passed, result
    assert words in result.detail, result


def test_ddim_passes_and_its_order_is_one():
    result = sampler(ddim(), steps=T // 4, sigma_max=SIGMA[-1])
    assert result.passed, result
    assert result.numbers["randomness"] == "no"
    assert 0.85 < result.numbers[f"order_{T}"] < 1.15
    assert result.numbers["first_sigma"] == SIGMA[-1]


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_noisier_samplers_of_the_family_pass(eta):
    result = sampler(ddim(eta=eta), steps=T // 4)
    assert result.passed, result
    assert result.numbers["randomness"] == "yes"


@pytest.mark.parametrize("order", [1, 2])
def test_solvers_of_the_probability_flow_have_their_order(order):
    result = sampler(ode(order), steps=40, order=order, sigma_max=80)
    assert result.passed, result
    assert abs(result.numbers["order_160"] - order) < 0.25


def test_an_order_is_not_granted_to_who_only_claims_it():
    assert_caught(sampler(ode(1), steps=40, order=2), "a solver of order 2 would be 4 times nearer")


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_steps_that_do_not_chain_are_found(eta):
    assert_caught(sampler(ddim("does not chain", eta), steps=30), "a step ends where the next does not begin")


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("wrong", ["noise at the end", "does not end", "scaled"])
def test_what_is_left_at_the_end_is_found(wrong, eta):
    assert_caught(sampler(ddim(wrong, eta), steps=30), "noise is added at the end, or left")


def test_a_sampler_that_never_sees_the_highest_level_is_found():
    assert_caught(sampler(ddim("leading"), steps=30, sigma_max=SIGMA[-1]), "not at the highest level")


def test_noise_on_top_of_a_direction_at_full_length_is_found():
    assert_caught(sampler(ddim("direction at full length", 1.0), steps=30), "has not the noise of that level")


def test_a_larger_variance_than_accounted_for_is_found_unless_it_is_meant():
    """DDPM with sigma_t^2 = beta_t: noisier all the way, and right in the end."""
    assert_caught(sampler(ddim("beta", 1.0), steps=T // 4), "has not the noise of that level")
    result = sampler(ddim("beta", 1.0), steps=T // 4, marginals=False)
    assert result.passed, result


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_a_wrong_distribution_is_found(eta):
    """Less is believed of what the denoiser says than it is worth: a point comes out right, a distribution does not."""

    def sample(denoiser, noise, steps, generator):
        mean = denoiser(torch.zeros_like(noise), 1e6)
        return ddim(eta=eta)(lambda x, sigma: mean + 0.8 * (denoiser(x, sigma) - mean), noise, steps, generator)

    assert_caught(sampler(sample, steps=T // 4), "of a normal distribution")


def test_heun_at_the_old_level_is_found():
    assert not sampler(ode(2, "Heun asks at the old level"), steps=40, order=2).passed


def test_levels_that_grow_are_found():
    assert_caught(sampler(ddim("grows"), steps=30, marginals=False), "sigma grows on the way")


def test_levels_may_come_as_tensors_but_not_differ_within_a_batch():
    for kind in ("a level each", "float32 levels"):
        result = sampler(ddim(kind), steps=T // 4)
        assert result.passed, (kind, result)
    assert_caught(sampler(ddim("levels differ"), steps=30), "one noise level above 0")


def test_the_callers_noise_is_left_alone():
    assert_caught(sampler(ddim("the caller's noise"), steps=30), "modifies the tensor")


@pytest.mark.parametrize(
    ("sample", "words"),
    [
        (ddim("loses one"), "not as many samples"),
        (lambda denoiser, noise, steps, generator: None, "returns NoneType"),
        (lambda denoiser, noise, steps, generator: noise, "never asks"),
        (lambda denoiser, noise, steps, generator: denoiser(noise, 1.0) / 0, "not a finite number"),
        (lambda denoiser, noise, steps, generator: denoiser(noise, 0.0), "one noise level above 0"),
    ],
)
def test_what_is_no_sampler_is_told_apart(sample, words):
    assert_caught(sampler(sample, steps=30), words)


@pytest.mark.parametrize("settings", [{"steps": 1}, {"steps": 10, "order": 0}])
def test_impossible_settings_are_refused(settings):
    with pytest.raises(ConfigError):
        sampler(ddim(), **settings)
