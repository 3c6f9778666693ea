"""The mathematics of diffusion models, on pixels whose processes are Gaussians that can be worked out."""

import dataclasses
import itertools
import json
import math

import pytest
import torch
from torch import Tensor

from common import probes
from common.data import load
from common.data.centred import Centred
from common.errors import ConfigError
from common.experiment import Run
from common.nn import EpsilonDenoiser
from projects.ddpm import ddpm
from projects.ddpm.ddpm import CODES, IDEAL, PRESETS, SHORT, Config, Diffusion, exact_log_p, process, strata

PAPER = process(Config())


pytestmark = pytest.mark.usefixtures("double")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed))


def every_t(diffusion: Diffusion) -> Tensor:
    return torch.arange(1, diffusion.T + 1)


# -- The two processes -------------------------------------------------------------------------------------------------


def test_the_schedule_is_the_papers():
    assert PAPER.T == 1000
    torch.testing.assert_close(PAPER.beta[[1, 1000]], torch.tensor([1e-4, 0.02]))
    assert PAPER.abar.dtype == torch.float64
    assert PAPER.abar[0] == 1
    assert PAPER.abar[-1] < 1e-3
    torch.testing.assert_close(PAPER.sigma2[2:], PAPER.beta[2:])
    assert PAPER.sigma2[1] == PAPER.beta_tilde[2]  # the decoder's, as in the authors' code
    # section 4: L_T is about 1e-5 bits per dimension, of pixels in [-1, 1]
    codes = torch.linspace(-1, 1, 256)[None]
    assert 5e-6 < PAPER.L_T(codes) / 256 / math.log(2) < 5e-5


@pytest.mark.parametrize("T", [25, 100, 200, 4000])
def test_fewer_steps_are_larger_so_that_no_signal_is_left(T):
    """Pitfall 28: betas made for a thousand steps leave 0.36 of the signal's variance after a hundred."""
    abar = process(Config(T=T, sample_steps=5, eval_terms=5)).abar
    assert 0 < abar[-1] < 1e-3
    assert (abar.diff() < 0).all()


def test_q_of_x_t_is_a_chain_of_small_steps():
    """Eq. 2, step by step, gives eq. 4: means and variances of x_t given x_0."""
    mean, var = torch.tensor(1.0), torch.tensor(0.0)
    for t in range(1, 1001):
        mean, var = (1 - PAPER.beta[t]).sqrt() * mean, (1 - PAPER.beta[t]) * var + PAPER.beta[t]
        x_1 = PAPER.q_sample(torch.ones(1, 1), torch.tensor([t]), torch.zeros(1, 1))
        noise = PAPER.q_sample(torch.zeros(1, 1), torch.tensor([t]), torch.ones(1, 1))
        torch.testing.assert_close(x_1.squeeze(), mean, rtol=1e-10, atol=0)
        torch.testing.assert_close(noise.squeeze().square(), var, rtol=1e-10, atol=0)


@pytest.mark.parametrize("t", [2, 3, 17, 500, 1000])
def test_the_posterior_is_bayes(t):
    """Eqs. 6 and 7 against the product of q(x_t | x_{t-1}) and q(x_{t-1} | x_0), integrated on a grid."""
    x_0, x_t = torch.tensor(0.4), torch.tensor(0.1)
    beta, before = PAPER.beta[t], PAPER.abar[t - 1]
    grid = torch.linspace(-6, 6, 400_001)
    log_p = -(x_t - (1 - beta).sqrt() * grid).square() / (2 * beta)
    log_p = log_p - (grid - before.sqrt() * x_0).square() / (2 * (1 - before))
    weights = torch.softmax(log_p, 0)
    mean = (weights * grid).sum()
    found = PAPER.mu_tilde(x_t.view(1, 1), x_0.view(1, 1), torch.tensor([t])).squeeze()
    torch.testing.assert_close(found, mean, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(PAPER.beta_tilde[t], (weights * (grid - mean).square()).sum(), rtol=1e-4, atol=0)


def test_the_first_step_of_q_leads_from_the_data_itself():
    torch.testing.assert_close(PAPER.mu_tilde(draw(3, 2), draw(3, 2, seed=1), torch.ones(3).long()), draw(3, 2, seed=1))


@pytest.mark.parametrize("predict", ["eps", "mu", "x0"])
def test_all_predictions_are_one(predict):
    """Pitfall 29: a perfect network gives back x_0 and mu-tilde, whatever it predicts; eq. 11 is that for eps."""
    diffusion = process(Config(predict=predict))
    t = every_t(diffusion)
    x_0, eps = draw(1000, 3), draw(1000, 3, seed=1)
    x_t = diffusion.q_sample(x_0, t, eps)
    mu_tilde = diffusion.mu_tilde(x_t, x_0, t)
    perfect = {"eps": eps, "mu": mu_tilde, "x0": x_0}[predict]
    mu, x0_hat = diffusion.p_mean(lambda x, times: perfect, x_t, t, clip=False)
    torch.testing.assert_close(x0_hat, x_0, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(mu, mu_tilde, rtol=1e-9, atol=1e-9)
    alpha, abar = diffusion.alpha[1:, None], diffusion.abar[1:, None]
    eq_11 = (x_t - (1 - alpha) / (1 - abar).sqrt() * eps) / alpha.sqrt()
    torch.testing.assert_close(mu, eq_11, rtol=1e-9, atol=1e-9)


def test_the_network_is_behind_the_denoiser_interface():
    """x_0 by `common.nn.EpsilonDenoiser`, which DDIM's sampler uses, is eq. 15."""

    def network(x_t: Tensor, t: Tensor) -> Tensor:
        return (x_t * t[:, None]).cos()

    denoise = EpsilonDenoiser(network, PAPER.abar[1:])
    x_t = draw(4, 3)
    for t in (1, 300, 1000):
        x0_hat = PAPER.p_mean(network, x_t, torch.full((4,), t), clip=False)[1]
        found = denoise(x_t / PAPER.abar[t].sqrt(), denoise.sigmas[t - 1])
        torch.testing.assert_close(found, x0_hat, rtol=1e-9, atol=1e-9)


def test_clipping_is_of_x0_hat():
    mu, x0_hat = PAPER.p_mean(lambda x, t: -5 * torch.ones_like(x), draw(8, 2), torch.full((8,), 900), clip=True)
    assert x0_hat.abs().max() == 1
    torch.testing.assert_close(mu, PAPER.mu_tilde(draw(8, 2), x0_hat, torch.full((8,), 900)))


# -- Sampling ----------------------------------------------------------------------------------------------------------


def test_the_last_step_adds_no_noise_and_all_others_sigma():
    """Pitfall 26, and sigma_t of each step: with the mean held at zero, x_t is the noise alone."""
    still = process(Config(T=50, predict="mu", sample_steps=5, eval_terms=5))
    steps = list(still.reverse(lambda x, t: torch.zeros_like(x), 50, torch.ones(20_000, 1), seeded()))
    assert [t for t, _, _ in steps] == list(range(49, -1, -1))
    for t, x_t, _ in steps[:-1]:  # x_t was drawn with sigma_{t + 1}
        assert abs(float(x_t.var() / still.beta[t + 1]) - 1) < 0.06
    assert torch.equal(steps[-1][1], torch.zeros(20_000, 1))


@pytest.mark.parametrize("variance", ["beta", "beta_tilde"])
def test_ideal_networks_are_sampled_by_the_variance_that_is_best_for_them(variance):
    """Section 3.2: beta is optimal for x_0 ~ N(0, I), beta-tilde for x_0 at one point. Exactly so, at every t."""
    diffusion = Diffusion(PAPER.beta[1:], "eps", variance, 256)
    spread = {"beta": 1.0, "beta_tilde": 0.0}[variance]

    def network(x_t: Tensor, t: Tensor) -> Tensor:  # of N(0, spread^2)
        abar = diffusion.at(diffusion.abar, t, x_t)
        return (1 - abar).sqrt() * x_t / (abar * spread**2 + 1 - abar)

    for t in range(1000, 1, -1):  # var of x_{t-1} from that of x_t
        factor = diffusion.p_mean(network, torch.ones(1, 1), torch.tensor([t]), clip=False)[0].squeeze()
        var = factor**2 * (diffusion.abar[t] * spread**2 + 1 - diffusion.abar[t]) + diffusion.sigma2[t]
        exact = diffusion.abar[t - 1] * spread**2 + 1 - diffusion.abar[t - 1]
        torch.testing.assert_close(var, exact, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("steps", [2, 10, 37, 999])
def test_a_shorter_chain_has_the_same_levels_and_they_chain(steps):
    """Pitfall 24: from x_T to x_0, each step ending where the next begins; the network is told its own t."""
    chain = PAPER.respaced(steps)
    assert chain.times[[1, -1]].tolist() == [1, 1000]
    torch.testing.assert_close(chain.abar[1:], PAPER.abar[chain.times[1:]])
    asked = []

    def network(x_t: Tensor, t: Tensor) -> Tensor:
        asked.append(t.tolist())
        return torch.zeros_like(x_t)

    list(chain.reverse(network, chain.T, draw(2, 1), seeded()))
    assert asked == [[t, t] for t in chain.times[1:].flip(0).tolist()]


def test_a_chain_of_all_steps_is_the_process_itself():
    assert PAPER.respaced(1000) is PAPER
    beta = PAPER.respaced(999).beta
    assert (beta[2:] >= PAPER.beta[2:1000] * 0.99).all()


@pytest.mark.parametrize(("steps", "off"), [(300, 0.02), (50, 0.05)])
def test_perfect_networks_make_the_same_samples_whatever_they_predict(steps, off):
    """On a shorter chain a predicted mu is the mean of a shorter step than the chain's. Samples of N(0, 0.25^2)."""
    samples = []
    for predict in ("eps", "mu", "x0"):
        diffusion = Diffusion(PAPER.beta[1:], predict, "beta_tilde", 256)

        def network(x_t: Tensor, t: Tensor, diffusion=diffusion, predict=predict) -> Tensor:
            abar = diffusion.at(diffusion.abar, t, x_t)
            x0_hat = abar.sqrt() * 0.0625 * x_t / (abar * 0.0625 + 1 - abar)
            eps = (x_t - abar.sqrt() * x0_hat) / (1 - abar).sqrt()
            return {"eps": eps, "mu": diffusion.mu_tilde(x_t, x0_hat, t), "x0": x0_hat}[predict]

        chain = diffusion.respaced(steps)
        *_, (_, x_0, _) = chain.reverse(network, chain.T, draw(4000, 1), seeded(5))
        samples.append(x_0)
    torch.testing.assert_close(samples[1], samples[0], rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(samples[2], samples[0], rtol=1e-6, atol=1e-7)
    assert abs(float(samples[0].std()) - 0.25) < off


@pytest.mark.parametrize("start", [1, 5, 25])
def test_interpolation_begins_at_the_level_that_it_noises_to(start, monkeypatch):
    """Pitfall 27: both images are noised to level t, denoising starts at t, and lambda = 0 and 1 are those images."""
    x = draw(2, 3, 1, 2, 2, seed=1).clamp(-1, 1)
    noised, asked = [], []
    real = SHORT.q_sample

    def spy(x_0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        noised.append((x_0, t.tolist()))
        return real(x_0, t, eps)

    def network(x_t: Tensor, t: Tensor) -> Tensor:
        asked.append(int(t[0]))
        return IDEAL(x_t, t)

    monkeypatch.setattr(SHORT, "q_sample", spy)
    found = ddpm.interpolate(SHORT, network, x, start, seeded())
    assert found.shape == (3, 9, 1, 2, 2)
    assert [t for _, t in noised] == [[start] * 3] * 2
    assert torch.equal(noised[0][0], x[0])
    assert torch.equal(noised[1][0], x[1])
    assert asked == 9 * list(range(start, 0, -1))
    generator = seeded()
    x_t, y_t = (real(each, torch.full((3,), start), torch.randn(each.shape, generator=generator)) for each in x)
    kept = generator.get_state()
    for column, end in ((0, x_t), (-1, y_t)):
        generator.set_state(kept)
        *_, (_, x_0, _) = SHORT.reverse(IDEAL, start, end, generator)
        torch.testing.assert_close(found[:, column], x_0)


def test_interpolation_varies_lambda_alone():
    x = draw(1, 3, 1, 2, 2).expand(2, 3, 1, 2, 2)  # both ends equal, but for their own noise
    found = ddpm.interpolate(SHORT, IDEAL, x, 12, seeded())
    assert torch.equal(found, ddpm.interpolate(SHORT, IDEAL, x, 12, seeded()))
    line = (found - found[:, :1]) / (
        found[:, -1:] - found[:, :1]
    )  # IDEAL is linear: lambda itself, unless noise differs
    torch.testing.assert_close(line, torch.linspace(0, 1, 9).view(1, 9, 1, 1, 1).expand_as(line), rtol=1e-6, atol=1e-6)


# -- The bound ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("levels", "sigma"), [(256, 0.0074), (256, 0.3), (17, 0.01), (2, 1.0)])
def test_the_decoder_is_a_distribution(levels, sigma):
    """Pitfall 9: the masses of all codes sum to 1, at both ends and in the far tails too; and eq. 13 is an integral."""
    diffusion = Diffusion(PAPER.beta[1:], "eps", "beta", levels)
    codes, _ = Centred(levels).encode(torch.arange(levels, dtype=torch.uint8))
    codes = codes.double()
    for mu in (-3.0, -1.0, -0.2, 0.123, 0.999, 2.0):
        log_p = diffusion.decoder(codes, torch.full_like(codes, mu), torch.tensor(sigma**2))
        assert torch.isfinite(log_p).all()
        torch.testing.assert_close(log_p.logsumexp(0), torch.tensor(0.0), rtol=0, atol=1e-6)
    i, mu, half = levels // 2, 0.1, 1 / (levels - 1)
    x = torch.linspace(float(codes[i]) - half, float(codes[i]) + half, 100_001)
    if levels > 2:
        density = torch.exp(-((x - mu) ** 2) / (2 * sigma**2)) / math.sqrt(2 * math.pi * sigma**2)
        log_p = diffusion.decoder(codes, torch.full_like(codes, mu), torch.tensor(sigma**2))[i]
        torch.testing.assert_close(log_p, torch.trapezoid(density, x).log(), rtol=1e-5, atol=1e-5)


def test_the_decoder_is_exact_in_the_tails_in_float32_too():
    """Pitfall 9: a tanh for erf is off by a nat and more, 1 - Phi by everything. Reference: Mills' ratio's series."""
    codes = torch.tensor([0.2], dtype=torch.float32).requires_grad_()
    half, sigma = 1 / 255, 0.0074
    log_p = PAPER.decoder(codes.detach(), codes - 0.2, torch.tensor(sigma**2))
    a = (0.2 - half) / sigma  # the nearer end of the cell, 26 deviations off; the further end adds less than 1e-12
    exact = -(a**2) / 2 - math.log(a * math.sqrt(2 * math.pi)) + math.log1p(-(a**-2) + 3 * a**-4 - 15 * a**-6)
    assert abs(float(log_p.detach()) - exact) < 1e-4 * abs(exact)
    (gradient,) = torch.autograd.grad(log_p.sum(), codes)
    assert torch.isfinite(gradient).all()
    assert gradient > 0  # towards the code


def kl_by_grid(m: Tensor, v: Tensor, mu: Tensor, sigma2: Tensor) -> Tensor:
    p, q = torch.distributions.Normal(m, v.sqrt()), torch.distributions.Normal(mu, sigma2.sqrt())
    return torch.distributions.kl_divergence(p, q)


@pytest.mark.parametrize("variance", ["beta", "beta_tilde"])
def test_each_term_is_its_kl(variance):
    """L_{t-1} against torch's KL of the two Gaussians, summed over dimensions (pitfall 8); eq. 12 in terms of eps."""
    diffusion = Diffusion(PAPER.beta[1:], "eps", variance, 256)
    x_0, eps, wrong = draw(4, 3), draw(4, 3, seed=1), draw(4, 3, seed=2)
    for t in (2, 3, 250, 1000):
        t_B = torch.full((4,), t)
        x_t = diffusion.q_sample(x_0, t_B, eps)
        found, _ = diffusion.L(lambda x, t: wrong, x_0, t_B, eps, clip=False)
        mu = (x_t - diffusion.beta[t] / (1 - diffusion.abar[t]).sqrt() * wrong) / diffusion.alpha[t].sqrt()
        s2 = diffusion.sigma2[t]
        kl = kl_by_grid(diffusion.mu_tilde(x_t, x_0, t_B), diffusion.beta_tilde[t], mu, s2).sum(1)
        torch.testing.assert_close(found, kl, rtol=1e-8, atol=1e-9)
        weight = diffusion.beta[t] ** 2 / (2 * s2 * diffusion.alpha[t] * (1 - diffusion.abar[t]))
        constant = 3 * 0.5 * (diffusion.beta_tilde[t] / s2 - 1 - (diffusion.beta_tilde[t] / s2).log())
        torch.testing.assert_close(found, weight * (eps - wrong).square().sum(1) + constant, rtol=1e-8, atol=1e-9)


def test_the_first_term_is_the_decoders():
    x_0 = CODES
    found, _ = SHORT.L(IDEAL, x_0, torch.ones(9).long(), draw(9, 2), clip=False)
    x_1 = SHORT.q_sample(x_0, torch.ones(9).long(), draw(9, 2))
    mu = SHORT.p_mean(IDEAL, x_1, torch.ones(9).long(), clip=False)[0]
    torch.testing.assert_close(found, -SHORT.decoder(x_0, mu, SHORT.sigma2[1]).sum(1))


def log_weight(x_0: Tensor, generator: torch.Generator) -> Tensor:
    """log p(x_0, x_1, ..., x_T) - log q(x_1, ..., x_T | x_0), one draw, by eqs. 1 and 2 alone: (B,)."""

    def log_normal(x: Tensor, mean: Tensor, var: Tensor) -> Tensor:
        return (-0.5 * ((x - mean).square() / var + (2 * math.pi * var).log())).sum(1)

    xs = [x_0]
    total = torch.zeros(len(x_0))
    for t in range(1, SHORT.T + 1):
        mean = (1 - SHORT.beta[t]).sqrt() * xs[-1]
        xs.append(mean + SHORT.beta[t].sqrt() * torch.randn(x_0.shape, generator=generator))
        total = total - log_normal(xs[-1], mean, SHORT.beta[t])
    total = total + log_normal(xs[-1], torch.zeros(1), torch.ones(1))
    for t in range(SHORT.T, 0, -1):
        mu = SHORT.p_mean(IDEAL, xs[t], torch.full((len(x_0),), t), clip=False)[0]
        total = total + (
            log_normal(xs[t - 1], mu, SHORT.sigma2[t]) if t > 1 else SHORT.decoder(x_0, mu, SHORT.sigma2[1]).sum(1)
        )
    return total


def test_the_sum_of_terms_is_the_bound_of_equation_3():
    """Closed-form KLs (eq. 5) against single log-weights along whole chains (eq. 3); below the exact log-likelihood."""
    x = CODES.repeat(2000, 1)
    parts, _ = SHORT.bound(IDEAL, x, SHORT.T, seeded(1))
    assert parts.shape == (len(x), SHORT.T + 1)
    torch.testing.assert_close(parts[:, -1], SHORT.L_T(x), rtol=1e-9, atol=0)
    elbo, weights = -parts.sum(1), log_weight(x, seeded(2))
    error = math.hypot(float(elbo.std()), float(weights.std())) / math.sqrt(len(x))
    assert abs(float(elbo.mean() - weights.mean())) < 5 * error
    assert error < 0.02
    exact = exact_log_p(SHORT, IDEAL, CODES).mean()
    assert float(exact - elbo.mean()) > 5 * error
    by_importance = weights.view(2000, 9).logsumexp(0) - math.log(2000)  # log p itself, as an average of weights
    torch.testing.assert_close(by_importance.mean(), exact, rtol=0, atol=0.1)


def test_exact_log_p_is_a_distribution_over_codes():
    every, _ = Centred(9).encode(torch.cartesian_prod(*[torch.arange(9, dtype=torch.uint8)] * 2))
    total = exact_log_p(SHORT, IDEAL, every.double()).logsumexp(0)
    torch.testing.assert_close(total, torch.tensor(0.0), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("T", "count"), [(1000, 64), (1000, 1000), (1000, 2), (25, 10), (25, 25), (50, 49)])
def test_strata_are_all_steps_once(T, count):
    pieces = strata(T, count)
    assert len(pieces) == count
    assert pieces[0] == (1, 2)
    assert list(itertools.chain.from_iterable(range(*piece) for piece in pieces)) == list(range(1, T + 1))


def test_a_few_terms_estimate_the_bound_without_bias():
    x = CODES.repeat(2000, 1)
    steps = {"n": 0}

    def network(x_t: Tensor, t: Tensor) -> Tensor:  # a network that may be asked about many t at once
        steps["n"] += 1
        abar = SHORT.at(SHORT.abar, t, x_t)
        return (1 - abar).sqrt() * x_t / (0.04 * abar + 1 - abar)

    whole, errors = SHORT.bound(network, x, SHORT.T, seeded(1))
    few, few_errors = SHORT.bound(network, x, 6, seeded(2))
    assert steps["n"] == 25 + 6
    assert few.shape == (len(x), 7)
    assert few_errors.shape == (len(x), 6)
    assert errors.mean(0).diff().min() > -1e-3  # the further from the data, the worse x0_hat
    error = math.hypot(float(whole.sum(1).std()), float(few.sum(1).std())) / math.sqrt(len(x))
    assert abs(float(whole.sum(1).mean() - few.sum(1).mean())) < 5 * error


def test_l_T_is_its_kl():
    x_0 = draw(3, 4)
    abar = PAPER.abar[-1]
    kl = kl_by_grid(abar.sqrt() * x_0, 1 - abar, torch.tensor(0.0), torch.tensor(1.0)).sum(1)
    torch.testing.assert_close(PAPER.L_T(x_0), kl, rtol=1e-6, atol=1e-12)


# -- Training ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("predict", ["eps", "mu", "x0"])
def test_objectives_are_equations_14_and_5(predict):
    """L_simple against its definition; the mean of "vlb", times T, against the sum of all terms."""
    diffusion = Diffusion(SHORT.beta[1:], predict, "beta", 9)
    x_0 = CODES.repeat(3000, 1)

    def network(x_t: Tensor, t: Tensor) -> Tensor:
        return 0.3 * x_t

    t = torch.randint(1, 26, (len(x_0),), generator=seeded(3))
    generator = seeded(3)
    torch.randint(1, 26, (len(x_0),), generator=generator)
    eps = torch.randn(x_0.shape, generator=generator)
    x_t = diffusion.q_sample(x_0, t, eps)
    target = {"eps": eps, "mu": diffusion.mu_tilde(x_t, x_0, t), "x0": x_0}[predict]
    by_hand = sum(float((target[i] - 0.3 * x_t[i]).square().mean()) for i in range(len(x_0))) / len(x_0)
    assert abs(float(diffusion.loss(network, x_0, "simple", seeded(3))) - by_hand) < 1e-9
    vlb = torch.stack([diffusion.loss(network, x_0, "vlb", seeded(k)) for k in range(8)])
    terms = [
        diffusion.L(network, x_0, torch.full((len(x_0),), t), draw(*x_0.shape, seed=t), clip=False)[0]
        for t in every_t(diffusion).tolist()
    ]
    whole = torch.stack(terms).sum(0).mean() / (2 * math.log(2))
    assert abs(float(vlb.mean() * 25 - whole)) < 6 * float(vlb.std() * 25 / math.sqrt(8)) + 0.01 * float(whole)


def test_weights_that_are_kept_are_the_average_with_a_short_memory_at_first(tmp_path):
    """Pitfall 31: at a decay of 0.9999, five updates would leave 99.95 % of the initial weights without warm-up."""
    torch.set_default_dtype(torch.float32)
    config = Config(dataset="digits", base=8, steps=5, **ddpm.SMALL | {"flips": True}, ema=0.9999)
    kept = ddpm.train(config, Run(tmp_path, torch.device("cpu"), {}, 0, progress=False))
    raw = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["state"]["model"]
    first = ddpm.build(config).state_dict()
    moved = {name: (kept.state_dict()[name] - first[name]).norm() for name in first}
    whole = {name: (raw[name] - first[name]).norm() for name in first}
    assert any(moved.values())
    assert sum(moved.values()) > 0.5 * sum(whole.values())
    assert not all(torch.equal(kept.state_dict()[name], raw[name]) for name in first)


def test_the_learning_rate_warms_up(tmp_path, monkeypatch):
    torch.set_default_dtype(torch.float32)
    seen = []
    real = ddpm.sgd_step

    def spy(loss_fn, adam, x_0, **settings):
        seen.append((adam.param_groups[0]["lr"], settings["clip"], settings["amp"]))
        return real(loss_fn, adam, x_0, **settings)

    monkeypatch.setattr(ddpm, "sgd_step", spy)
    config = Config(dataset="digits", base=8, steps=4, **ddpm.SMALL, warmup=3, learning_rate=3e-3, bf16=True)
    ddpm.train(config, Run(tmp_path, torch.device("cpu"), {}, 0, progress=False))
    assert [rate for rate, _, _ in seen] == pytest.approx([1e-3, 2e-3, 3e-3, 3e-3])
    assert all(rest == [1.0, "bf16"] for _, *rest in seen)


# -- The whole thing, small --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    torch.set_default_dtype(torch.float32)
    directory = tmp_path_factory.mktemp("run")
    config = dataclasses.replace(
        PRESETS["smoke"]["eps-simple"], base=8, steps=20, samples=70, sample_steps=4, eval_examples=30, eval_terms=4
    )
    run = Run(directory, torch.device("cpu"), {}, config.seed, progress=False)
    network = ddpm.train(config, run).eval()
    return config, run, network, ddpm.evaluate(config, network, run)


def test_scores_add_up_and_say_what_they_are(finished):
    torch.set_default_dtype(torch.float32)
    _, run, _, scores = finished
    found = {score.name: score for score in scores}
    assert list(found) == ["bits_per_dim", "distortion", "rate", "fd[raw-pixels]"]
    assert found["bits_per_dim"].value == pytest.approx(found["rate"].value + found["distortion"].value)
    assert {score.weights for score in scores} == {"ema"}
    assert {found[name].unit for name in ("bits_per_dim", "rate", "distortion")} == {"bits/dim"}
    assert found["fd[raw-pixels]"].n == 70
    assert "4 steps" in found["fd[raw-pixels]"].protocol
    assert found["fd[raw-pixels]"].split == "train"
    assert "digits" in run.data
    assert len(run.examples["bits_per_dim"]) == 30


def test_terms_of_a_network_that_says_zero_are_the_weights_of_equation_12():
    """On average over eps, ||eps - 0||^2 is the number of dimensions; at every fortieth t, to five standard errors."""
    torch.set_default_dtype(torch.float32)
    x_0, _ = Centred(17).encode(load("digits").test.x[:200])
    diffusion = process(Config(dataset="digits"), 17)
    for t in range(2, 1001, 40):
        eps = torch.randn(x_0.shape, generator=seeded(t))
        found, _ = diffusion.L(lambda x, t: torch.zeros_like(x), x_0, torch.full((200,), t), eps, clip=False)
        weight = diffusion.beta[t] ** 2 / (2 * diffusion.sigma2[t] * diffusion.alpha[t] * (1 - diffusion.abar[t]))
        ratio = diffusion.beta_tilde[t] / diffusion.sigma2[t]
        expected = 64 * float(weight + 0.5 * (ratio - 1 - ratio.log()))
        assert float(found.mean()) == pytest.approx(expected, rel=5 * math.sqrt(2 / (200 * 64)) + 1e-3)


def test_samples_are_codes_and_repeatable(finished):
    config, _, network, _ = finished
    chain = process(config, 17).respaced(4)
    torch.set_default_dtype(torch.float32)
    x = ddpm.sample(config, chain, network, 12, seeded())
    assert x.shape == (12, 1, 8, 8)
    assert torch.equal(x, ddpm.sample(config, chain, network, 12, seeded()))
    assert int(Centred(17).decode(x).max()) <= 16


def test_figures_are_drawn(finished):
    config, run, network, _ = finished
    torch.set_default_dtype(torch.float32)
    ddpm.illustrate(config, network, run)
    for name in ("samples", "nearest", "progressive", "interpolation"):
        assert (run.directory / f"{name}.png").stat().st_size > 500


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"T": 20, "sample_steps": 5, "eval_terms": 5}, "beta_T"),
        ({"beta_1": 0.03}, "beta_1"),
        ({"sample_steps": 1}, "sample_steps"),
        ({"eval_terms": 1001}, "eval_terms"),
        ({"samples": 0}, "samples"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, says):
    with pytest.raises(ConfigError, match=says):
        Config(**settings)


def test_presets_are_plain_and_differ_by_objective_and_prediction_alone():
    for runs in PRESETS.values():
        plain = [dataclasses.asdict(config) for config in runs.values()]
        json.dumps(plain)
        for config in plain:
            del config["predict"], config["objective"]
        assert all(config == plain[0] for config in plain)


@pytest.mark.parametrize("name", sorted(set(ddpm.PROBES) - {"resume", "bound"}))
def test_probes_pass(name):
    torch.set_default_dtype(torch.float32)
    result = ddpm.PROBES[name]()
    assert isinstance(result, probes.ProbeResult)
    assert result.passed, result
