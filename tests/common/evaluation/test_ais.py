"""Annealed importance sampling against likelihoods that are known: in closed form, by quadrature, by simulation."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from common.distributions import bernoulli_log_prob, standard_normal_log_prob
from common.errors import ConfigError, DataError
from common.evaluation import ais
from common.evaluation.ais import (
    Annealed,
    Decoder,
    ais_log_likelihood,
    ais_score,
    bdmc,
    bdmc_score,
    hamiltonian_transition,
    temperatures_of,
)

NOISE = 0.8
W = torch.tensor([[1.0, 0.3], [-0.6, 0.8], [0.2, -0.5]], dtype=torch.float64)
B = torch.tensor([0.5, -1.0, 0.0], dtype=torch.float64)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def linear_log_likelihood(x: Tensor, z: Tensor) -> Tensor:
    """x = W z + b + NOISE eps."""
    return standard_normal_log_prob((x - z.to(W) @ W.T - B) / NOISE) - len(B) * math.log(NOISE)


def linear_simulate(z: Tensor, generator: torch.Generator) -> Tensor:
    return z.to(W) @ W.T + B + NOISE * torch.randn(len(z), len(B), generator=generator, dtype=torch.float64)


LINEAR = Decoder(2, linear_log_likelihood, linear_simulate)


def linear_log_p(x: Tensor) -> Tensor:
    covariance = W @ W.T + NOISE**2 * torch.eye(len(B), dtype=torch.float64)
    return torch.distributions.MultivariateNormal(B, covariance).log_prob(x)


def z_of(values: Tensor) -> float:
    """Standard errors that the mean is away from 0."""
    return float(values.mean() / (values.std() / math.sqrt(len(values))))


# -- The linear-Gaussian decoder, whose likelihood is known ------------------------------------------------------------


@pytest.fixture(scope="module")
def sandwich() -> tuple[ais.Sandwich, Tensor]:
    found = bdmc(LINEAR, 1500, chains=2, temperatures=12, leapfrog=2, generator=seeded(1), batch_size=1500)
    return found, linear_log_p(found.x)


def test_weights_are_unbiased_both_ways(sandwich: tuple[ais.Sandwich, Tensor]) -> None:
    found, log_p = sandwich
    forward = (found.lower.log_w - log_p).exp().mean(0)
    assert abs(z_of(forward - 1)) < 4
    assert forward.std() / math.sqrt(len(forward)) < 0.02  # so that the line above says something
    # E[g(w/p) w/p] of forward chains is E[g(w/p)] of reversed ones for every g: 1/p has g = p/w, and long tails; here
    # g = 1 / (1 + w/p), which has none (Crooks 2000; Bennett 1976).
    balance = torch.sigmoid(found.lower.log_w - log_p).mean(0) - torch.sigmoid(log_p - found.upper.log_w).mean(0)
    assert abs(z_of(balance)) < 4
    assert balance.std() / math.sqrt(len(balance)) < 0.01


def test_one_direction_is_below_in_expectation_and_the_other_above(sandwich: tuple[ais.Sandwich, Tensor]) -> None:
    found, log_p = sandwich
    assert z_of(found.lower.log_p - log_p) < -4
    assert z_of(found.upper.log_p - log_p) > 4
    score = bdmc_score(found, protocol="toy")
    assert score.value == pytest.approx(float((found.upper.log_p - found.lower.log_p).mean()))
    assert (score.name, score.kind, score.unit, score.n) == ("bdmc_gap", "bound", "nats", 1500)
    assert score.protocol == ("AIS, 12 sigmoid temperatures, 2 chains, 2 leapfrog steps, 1,500 simulated examples; toy")


def test_the_stated_error_is_that_of_repeated_estimates() -> None:
    x = linear_simulate(torch.zeros(1, 2), seeded(3)).expand(400, 3) + torch.arange(400).double()[:, None] * 1e-9
    found = ais_log_likelihood(LINEAR, x, chains=32, temperatures=20, leapfrog=3, generator=seeded(4), batch_size=400)
    assert float(found.stderr.square().mean().sqrt() / found.log_p.std()) == pytest.approx(1, abs=0.2)
    assert ((found.effective >= 1) & (found.effective <= 32)).all()
    alike = Annealed(torch.full((5, 1), -700.0).double(), torch.ones(1), torch.ones(1, 1))
    assert (float(alike.log_p), float(alike.stderr), float(alike.effective)) == pytest.approx((-700, 0, 5))


def test_more_temperatures_and_more_chains_close_the_gap() -> None:
    def gap(temperatures: int, chains: int) -> float:
        found = bdmc(
            LINEAR, 150, chains=chains, temperatures=temperatures, leapfrog=2, generator=seeded(5), batch_size=150
        )
        return float(found.gap.mean())

    assert gap(2, 2) > 1.5 * gap(6, 2) > 3 * gap(40, 2) > 0
    assert gap(6, 2) > 1.5 * gap(6, 16) > 0


def test_a_single_temperature_is_importance_sampling_from_the_prior() -> None:
    x = linear_simulate(torch.zeros(40, 2), seeded(6))
    found = ais_log_likelihood(LINEAR, x, chains=3000, temperatures=1, generator=seeded(7))
    assert found.step_size.shape == (0, 40)
    assert ((found.log_p - linear_log_p(x)) / found.stderr).square().mean() == pytest.approx(1, abs=0.7)


# -- A decoder that is not Gaussian, by quadrature ---------------------------------------------------------------------


def bent_log_likelihood(x: Tensor, z: Tensor) -> Tensor:
    """Four bits, whose logits bend and fold two latent variables: the posteriors have several modes."""
    a, b = z.unbind(-1)
    return bernoulli_log_prob(x, 3 * torch.stack([a * b, a.square() - 1, torch.sin(2 * b), a - b], -1))


def test_a_folded_decoder_agrees_with_quadrature_and_its_states_sum_to_one() -> None:
    bits = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 4)
    line = torch.linspace(-8, 8, 401, dtype=torch.float64)
    grid = torch.cartesian_prod(line, line)[:, None]
    log_joint = bent_log_likelihood(bits, grid) + standard_normal_log_prob(grid)
    log_p = log_joint.logsumexp(0) + 2 * math.log(float(line[1] - line[0]))
    assert log_p.exp().sum() == pytest.approx(1, abs=1e-9)

    decoder = Decoder(2, bent_log_likelihood)
    found = ais_log_likelihood(decoder, bits, chains=300, temperatures=30, leapfrog=4, generator=seeded(8))
    assert (found.stderr < 0.1).all()
    assert ((found.log_p - log_p) / found.stderr).abs().max() < 4
    assert found.log_p.exp().sum() == pytest.approx(1, abs=0.05)


def test_another_prior_is_the_same_model_written_otherwise() -> None:
    scale, shift = 3.0, -2.0  # z' = scale z + shift

    wide = Decoder(
        2,
        lambda x, z: linear_log_likelihood(x, (z - shift) / scale),
        log_prior=lambda z: standard_normal_log_prob((z - shift) / scale) - 2 * math.log(scale),
        sample_prior=lambda n, d, g: shift + scale * torch.randn(n, d, generator=g),
    )
    x = linear_simulate(torch.zeros(60, 2), seeded(9))
    found = ais_log_likelihood(wide, x, chains=64, temperatures=40, leapfrog=3, generator=seeded(10))
    assert ((found.log_p - linear_log_p(x)) / found.stderr).square().mean() == pytest.approx(1, abs=0.7)


# -- Transitions -------------------------------------------------------------------------------------------------------


def test_a_transition_leaves_its_distribution_as_it_is() -> None:
    beta, chains = 0.7, 40_000
    x = torch.tensor([[0.9, -2.0, 0.4]], dtype=torch.float64)
    precision = torch.eye(2, dtype=torch.float64) + beta * W.T @ W / NOISE**2
    covariance = torch.linalg.inv(precision)
    target = torch.distributions.MultivariateNormal(covariance @ W.T @ (x[0] - B) * beta / NOISE**2, covariance)
    torch.manual_seed(0)
    state = ais._at(LINEAR, x, target.sample((chains, 1)))
    rates = []
    for _ in range(3):  # with steps so long that every third proposal is rejected
        momentum, uniform = torch.randn(chains, 1, 2).double(), torch.rand(chains, 1).double()
        step_size = torch.tensor([1.15], dtype=torch.float64)
        state, rate = hamiltonian_transition(LINEAR, x, state, beta, step_size, momentum, uniform, leapfrog=3)
        rates.append(float(rate.mean()))
    assert 0.3 < sum(rates) / 3 < 0.85
    white = (state.z[:, 0] - target.mean) @ torch.linalg.cholesky(precision)
    assert white.mean(0).abs().max() < 4 / math.sqrt(chains)
    assert (white.T @ white / chains - torch.eye(2)).abs().max() < 4 * math.sqrt(2 / chains)
    again = ais._at(LINEAR, x, state.z)  # what is remembered of the place belongs to the place
    for kept, found in zip(state, again, strict=True):
        torch.testing.assert_close(kept, found)


def test_a_trajectory_can_be_run_backwards() -> None:
    x, z = torch.zeros(2, 3).double(), torch.randn(4, 2, 2, generator=seeded(), dtype=torch.float64)
    momentum = torch.randn(4, 2, 2, generator=seeded(1), dtype=torch.float64)
    step_size, always = torch.tensor([0.1, 0.2]).double(), torch.zeros(4, 2).double()
    there, _ = hamiltonian_transition(LINEAR, x, ais._at(LINEAR, x, z), 1.0, step_size, momentum, always, 1)
    # The momentum at the end of one leapfrog step follows from its two ends.
    eps = step_size[:, None]
    half = (there.z - z) / eps
    back = -(half + 0.5 * eps * there.slope(1.0))
    home, _ = hamiltonian_transition(LINEAR, x, there, 1.0, step_size, back, always, 1)
    torch.testing.assert_close(home.z, z)


def test_a_trajectory_that_runs_away_is_rejected() -> None:
    x, z = torch.zeros(1, 3).double(), torch.ones(2, 1, 2).double()
    state = ais._at(LINEAR, x, z)
    for step_size in (1e3, 1e200):
        after, rate = hamiltonian_transition(
            LINEAR, x, state, 1.0, torch.tensor([step_size]).double(), z, torch.zeros(2, 1).double(), leapfrog=5
        )
        assert torch.equal(after.z, z)
        assert (rate == 0).all()


def test_step_sizes_reach_the_acceptance_and_do_not_depend_on_the_chains_that_are_weighed() -> None:
    x = linear_simulate(torch.zeros(50, 2), seeded(11))
    few, many = (
        ais_log_likelihood(LINEAR, x, chains=chains, temperatures=60, leapfrog=3, generator=seeded(12))
        for chains in (2, 9)
    )
    assert torch.equal(few.step_size, many.step_size)
    assert float(many.acceptance.mean()) == pytest.approx(ais.ACCEPTANCE, abs=0.08)
    assert float(many.step_size[0].mean()) > 1.3 * float(many.step_size[-1].mean())  # the posterior is narrower


# -- What must not matter ----------------------------------------------------------------------------------------------


def settings(**more: object) -> dict[str, object]:
    return {"chains": 3, "temperatures": 10, "leapfrog": 2, "generator": seeded(13), **more}


def test_neither_batches_nor_order_matter() -> None:
    x = linear_simulate(torch.zeros(5, 2), seeded(14))
    whole = ais_log_likelihood(LINEAR, x, **settings())  # type: ignore[arg-type]
    assert len(whole.log_p.unique()) == 5
    order = torch.randperm(5, generator=seeded(15))
    for batch_size in (1, 3):
        part = ais_log_likelihood(LINEAR, x[order], **settings(batch_size=batch_size))  # type: ignore[arg-type]
        torch.testing.assert_close(part.log_w, whole.log_w[:, order], rtol=1e-9, atol=1e-9)
    other = ais_log_likelihood(LINEAR, x, **settings(generator=seeded(16)))  # type: ignore[arg-type]
    assert not (other.log_w == whole.log_w).any()


class Network(nn.Module):
    """A decoder of float32 with weights, which must come out as they went in."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 5))

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        return bernoulli_log_prob(x, self.layers(z))


def test_a_network_is_only_looked_at_even_in_inference_mode() -> None:
    model = Network()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    decoder = Decoder(2, model.log_likelihood)
    bits = torch.bernoulli(torch.full((6, 5), 0.5), generator=seeded(17))
    expected = ais_log_likelihood(decoder, bits, **settings())  # type: ignore[arg-type]
    with torch.inference_mode():
        again = ais_log_likelihood(decoder, bits.clone(), **settings())  # type: ignore[arg-type]
    assert torch.equal(again.log_w, expected.log_w)
    assert expected.log_w.dtype == torch.float64
    assert not expected.log_w.requires_grad
    for name, p in model.named_parameters():
        assert p.grad is None
        assert p.requires_grad
        assert torch.equal(p, before[name])


# -- Temperatures, scores and refusals ---------------------------------------------------------------------------------


def test_temperatures_lead_from_0_to_1() -> None:
    for spacing in ("sigmoid", "linear"):
        beta = temperatures_of(9, spacing)  # type: ignore[arg-type]
        assert (len(beta), float(beta[0]), float(beta[-1])) == (10, 0, 1)
        assert (beta.diff() > 0).all()
        torch.testing.assert_close(beta + beta.flip(0), torch.ones(10, dtype=torch.float64))
    logit = torch.logit(temperatures_of(8) * math.tanh(2.0) + torch.sigmoid(torch.tensor(-4.0).double()))
    torch.testing.assert_close(logit, torch.arange(-4.0, 5.0).double())  # sigma(4) - sigma(-4) = tanh(2)
    assert temperatures_of(1).tolist() == [0, 1]


def test_a_score_says_what_it_depends_on() -> None:
    x = linear_simulate(torch.zeros(20, 2), seeded(18))
    score = ais_score(LINEAR, x, split="test", protocol="toy", weights="ema", **settings())  # type: ignore[arg-type]
    found = ais_log_likelihood(LINEAR, x, **settings())  # type: ignore[arg-type]
    assert score.value == pytest.approx(-float(found.log_p.mean()))
    assert score.stderr == pytest.approx(float(found.log_p.std()) / math.sqrt(20))
    assert (score.name, score.kind, score.split, score.weights, score.n) == ("nll", "bound", "test", "ema", 20)
    assert score.protocol == "AIS, 10 sigmoid temperatures, 3 chains, 2 leapfrog steps, 20 examples; toy"


def test_what_cannot_be_is_refused() -> None:
    x = torch.zeros(4, 3, dtype=torch.float64)
    for name in ("chains", "temperatures", "leapfrog", "batch_size"):
        with pytest.raises(ConfigError, match=f"{name} = 0.*>= 1"):
            ais_log_likelihood(LINEAR, x, **settings(**{name: 0}))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="'sigmoid' or 'linear'"):
        ais_log_likelihood(LINEAR, x, **settings(spacing="cubic"))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="the split is empty"):
        ais_log_likelihood(LINEAR, x[:0], **settings())  # type: ignore[arg-type]
    with pytest.raises(DataError, match="x is uint8: encode"):
        ais_log_likelihood(LINEAR, x.to(torch.uint8), **settings())  # type: ignore[arg-type]
    summed = Decoder(2, lambda x, z: linear_log_likelihood(x, z).sum(0))
    with pytest.raises(ConfigError, match=r"gives \(4,\) for z of .*\(4, 4\), is expected"):
        ais_log_likelihood(summed, x, **settings())  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="`simulate`"):
        bdmc(replace(LINEAR, simulate=None), 5, **settings())  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="n = 0"):
        bdmc(LINEAR, 0, **settings())  # type: ignore[arg-type]


def test_a_likelihood_that_is_not_a_number_is_named_and_one_of_zero_counts_as_zero() -> None:
    x = torch.zeros(4, 3, dtype=torch.float64)
    broken = x.clone()
    broken[1] = math.nan
    with pytest.raises(DataError, match="not a number at draws from the prior, for 1 of 4 examples"):
        ais_log_likelihood(LINEAR, broken, **settings())  # type: ignore[arg-type]

    def half(x: Tensor, z: Tensor) -> Tensor:
        """Impossible wherever the first variable is negative; elsewhere sure."""
        return torch.where(z[..., 0] > 0, 0.0, -math.inf) + 0 * z.sum(-1)

    found = ais_log_likelihood(Decoder(2, half), x, **settings(chains=4000))  # type: ignore[arg-type]
    assert (found.log_p.exp() - 0.5).abs().max() < 4 * 0.5 / math.sqrt(4000)
    never = Decoder(2, lambda x, z: 0 * z.sum(-1) - math.inf)
    with pytest.raises(DataError, match="4 of 4 examples have a likelihood of zero"):
        ais_score(never, x, split="test", **settings())  # type: ignore[arg-type]
