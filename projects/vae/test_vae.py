"""The mathematics of auto-encoding variational Bayes, on models small enough to know the answer."""

import dataclasses
import math

import pytest
import torch
from torch.distributions import Bernoulli, Independent, Normal, kl_divergence

from common.data import load
from common.distributions import normal_kl
from common.errors import ConfigError
from common.experiment import Run
from common.records import read_metrics
from common.training import sgd_step
from projects.vae import vae
from projects.vae.vae import PRESETS, VAE, Config, estimator_a, estimator_b, log_prob_by_quadrature

D, J = 4, 2
BERNOULLI = Config(latents=J, hidden=5, decoder="bernoulli", init_std=0.5)
GAUSSIAN = dataclasses.replace(BERNOULLI, decoder="gaussian")
both_decoders = pytest.mark.parametrize("config", [BERNOULLI, GAUSSIAN], ids=["bernoulli", "gaussian"])


pytestmark = pytest.mark.usefixtures("double")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def model_of(config: Config) -> VAE:
    torch.manual_seed(1)
    return VAE(config, D)


def greys(n: int) -> torch.Tensor:
    return torch.rand(n, D, generator=seeded(2))


def noise(draws: int, n: int, seed: int = 3) -> torch.Tensor:
    return torch.randn(draws, n, J, generator=seeded(seed))


def posterior(model: VAE, x: torch.Tensor) -> Independent:
    mean, log_var = model.encoder(x)
    return Independent(Normal(mean, (log_var / 2).exp()), 1)


def prior() -> Independent:
    return Independent(Normal(torch.zeros(J), torch.ones(J)), 1)


# -- The model's densities --------------------------------------------------------------------------------------------


def test_kl_of_appendix_b_is_torchs_and_monte_carlos():
    q = posterior(model_of(BERNOULLI), greys(3))
    mean, log_var = q.mean, q.variance.log()
    torch.testing.assert_close(normal_kl(mean, log_var), kl_divergence(q, prior()))
    z = q.sample((40_000,))
    draws = q.log_prob(z) - prior().log_prob(z)
    stderr = draws.std(0) / math.sqrt(len(draws))
    assert ((draws.mean(0) - normal_kl(mean, log_var)).abs() < 5 * stderr).all()


def test_bernoulli_decoder_is_equation_11():
    model, x, z = model_of(BERNOULLI), greys(3), noise(7, 3)
    decoder = model.decoder
    y = torch.sigmoid(torch.tanh(z @ decoder.hidden.weight.T + decoder.hidden.bias) @ decoder.logits.weight.T)
    y = torch.sigmoid(torch.logit(y) + decoder.logits.bias)
    torch.testing.assert_close(decoder.log_prob(x, z), (x * y.log() + (1 - x) * (1 - y).log()).sum(-1))
    bits = x.round()
    torch.testing.assert_close(decoder.log_prob(bits, z), Independent(Bernoulli(y), 1).log_prob(bits))
    torch.testing.assert_close(decoder.expected(z), y)


def test_gaussian_decoder_is_equation_12_with_its_mean_between_0_and_1():
    model, x, z = model_of(GAUSSIAN), greys(3), 30 * noise(7, 3)
    decoder = model.decoder
    h = torch.tanh(z @ decoder.hidden.weight.T + decoder.hidden.bias)
    mean = torch.sigmoid(h @ decoder.mean.weight.T + decoder.mean.bias)
    log_var = h @ decoder.log_var.weight.T + decoder.log_var.bias
    torch.testing.assert_close(decoder.log_prob(x, z), Independent(Normal(mean, (log_var / 2).exp()), 1).log_prob(x))
    torch.testing.assert_close(decoder.expected(z), mean)


def test_the_encoders_mean_is_not_squashed():
    model = model_of(BERNOULLI)
    torch.nn.init.constant_(model.encoder.mean.bias, 7.0)
    assert (model.encoder(greys(3))[0] > 4).all()


@both_decoders
def test_dreams_follow_the_joint(config):
    model, n = model_of(config), 40_000
    x, z = model.dream(n, seeded())
    for draws, expected in ((x, model.decoder.expected(z).mean(0)), (z, torch.zeros(J)), (z.square(), torch.ones(J))):
        assert ((draws.mean(0) - expected).abs() < 5 * draws.std(0) / math.sqrt(n)).all()
    if config.decoder == "gaussian":  # and with the decoder's own variance
        mean, log_var = model.decoder(z)
        squares = (x - mean).square() / log_var.exp()
        assert ((squares.mean(0) - 1).abs() < 5 * squares.std(0) / math.sqrt(n)).all()
    else:
        assert set(x.unique().tolist()) == {0.0, 1.0}


# -- The estimators ---------------------------------------------------------------------------------------------------


@both_decoders
def test_estimators_a_and_b_written_out(config):
    model, x, eps = model_of(config), greys(3), noise(6, 3)
    q = posterior(model, x)
    z = q.mean + q.stddev * eps
    log_p = model.decoder.log_prob(x, z)
    expected_a = (prior().log_prob(z) + log_p - q.log_prob(z)).mean(0)
    torch.testing.assert_close(estimator_a(model, x, eps), expected_a)
    torch.testing.assert_close(estimator_b(model, x, eps), log_p.mean(0) - kl_divergence(q, prior()))


@both_decoders
def test_estimators_agree_in_expectation_though_not_in_each_draw(config):
    model, x, n = model_of(config), greys(1), 40_000
    eps = noise(1, n)
    a, b = (estimator(model, x.expand(n, D), eps) for estimator in (estimator_a, estimator_b))
    difference = a - b
    assert difference.mean().abs() < 5 * difference.std() / math.sqrt(n)
    assert difference.std() > 0.01


@both_decoders
@pytest.mark.parametrize("estimator", [estimator_a, estimator_b])
def test_gradient_is_that_of_finite_differences(config, estimator):
    """Through the sample and through both networks: nothing is detached."""
    model, x, eps = model_of(config), greys(3), noise(2, 3)

    def bound() -> torch.Tensor:
        return estimator(model, x, eps).mean()

    names, parameters = zip(*model.named_parameters(), strict=True)
    gradients = torch.autograd.grad(bound(), parameters)
    for name, parameter, gradient in zip(names, parameters, gradients, strict=True):
        direction = torch.randn(parameter.shape, generator=seeded(4))
        with torch.no_grad():
            values = []
            for sign in (1, -1):
                parameter.add_(direction, alpha=sign * 1e-5)
                values.append(bound())
                parameter.sub_(direction, alpha=sign * 1e-5)
        numerical = (values[0] - values[1]) / 2e-5
        torch.testing.assert_close((gradient * direction).sum(), numerical, rtol=1e-5, atol=1e-8, msg=name)


@both_decoders
@pytest.mark.parametrize("latents", [1, 2])
def test_bound_is_below_log_p_by_the_kl_to_the_true_posterior(config, latents):
    """Eq. (1): log p(x) - L = KL(q(z|x) || p(z|x)), all by quadrature over z."""
    model, x = model_of(dataclasses.replace(config, latents=latents)), greys(5)
    log_p = log_prob_by_quadrature(model, x)

    axis = torch.linspace(-12, 12, 1201 if latents == 1 else 241)
    z = torch.cartesian_prod(*[axis] * latents).view(-1, 1, latents).expand(-1, len(x), -1)
    log_q = posterior(model, x).log_prob(z)
    log_posterior = model.log_joint(x, z) - log_p
    volume = (axis[1] - axis[0]) ** latents
    kl = ((log_q - log_posterior) * log_q.exp()).sum(0) * volume
    assert (kl > 1e-3).all()

    draws = estimator_b(model, x.repeat(4000, 1), torch.randn(1, 4000 * len(x), latents, generator=seeded()))
    draws = draws.view(4000, len(x))
    assert ((draws.mean(0) - (log_p - kl)).abs() < 5 * draws.std(0) / math.sqrt(len(draws)) + 1e-6).all()


def test_sum_over_dimensions_and_mean_over_examples():
    """Twice the pixels, twice the reconstruction term and the same KL; twice the batch, the same loss."""
    model, x, eps = model_of(BERNOULLI), greys(3), noise(1, 3)
    kl = kl_divergence(posterior(model, x), prior())
    reconstruction = estimator_b(model, x, eps) + kl
    wide = VAE(BERNOULLI, 2 * D)
    state = model.state_dict()
    for name in ("decoder.logits.weight", "decoder.logits.bias"):
        state[name] = torch.cat([state[name]] * 2)
    state["encoder.hidden.weight"] = torch.cat([state["encoder.hidden.weight"]] * 2, 1) / 2
    wide.load_state_dict(state)
    torch.testing.assert_close(estimator_b(wide, torch.cat([x, x], 1), eps), 2 * reconstruction - kl)

    eps_twice, x_twice = torch.cat([eps, eps], 1), torch.cat([x, x])
    torch.testing.assert_close(estimator_b(model, x_twice, eps_twice).mean(), estimator_b(model, x, eps).mean())


# -- The two algorithms -----------------------------------------------------------------------------------------------


def gradients_after(model: VAE) -> dict[str, bool]:
    return {name: parameter.grad is not None for name, parameter in model.named_parameters()}


@both_decoders
def test_each_phase_of_wake_sleep_moves_its_own_parameters_only(config):
    config = dataclasses.replace(config, algorithm="wake_sleep")
    model, x = model_of(config), greys(10)
    adagrad = vae.optimizers(model, config, examples=100)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}

    def moved() -> set[str]:
        return {name.split(".")[0] for name, p in model.named_parameters() if not torch.equal(p, before[name])}

    sgd_step(lambda batch: vae.wake_loss(model, batch, config, seeded()), adagrad["wake"], x)
    assert moved() == {"decoder"}
    assert all(had == name.startswith("decoder") for name, had in gradients_after(model).items())
    model.zero_grad(set_to_none=True)
    before |= {name: p.detach().clone() for name, p in model.decoder.named_parameters(prefix="decoder")}
    sgd_step(lambda dream: vae.sleep_loss(model, dream), adagrad["sleep"], model.dream(10, seeded()))
    assert moved() == {"encoder"}
    assert all(had == name.startswith("encoder") for name, had in gradients_after(model).items())


@both_decoders
def test_wake_and_sleep_losses_written_out(config):
    model, x = model_of(config), greys(5)
    q, eps = posterior(model, x), torch.randn(1, 5, J, generator=seeded())
    z = q.mean + q.stddev * eps
    loss, metrics = vae.wake_loss(model, x, config, seeded())
    torch.testing.assert_close(loss, -model.decoder.log_prob(x, z).mean())
    torch.testing.assert_close(metrics["bound"], estimator_b(model, x, eps).mean())

    dreamt, causes = model.dream(5, seeded(7))
    torch.testing.assert_close(
        vae.sleep_loss(model, (dreamt, causes))[0], -posterior(model, dreamt).log_prob(causes).mean()
    )


def test_no_gradient_reaches_the_sleeper_while_awake_nor_the_dreamer():
    model = model_of(GAUSSIAN)
    loss, _ = vae.wake_loss(model, greys(5), GAUSSIAN, seeded())
    assert set(torch.autograd.grad(loss, list(model.encoder.parameters()), allow_unused=True)) == {None}
    assert not any(t.requires_grad for t in model.dream(5, seeded()))


def test_every_night_has_another_dream(tmp_path, monkeypatch):
    torch.set_default_dtype(torch.float32)
    dreams = []
    dream = VAE.dream

    def remembered(self, n, generator):
        dreams.append(dream(self, n, generator))
        return dreams[-1]

    monkeypatch.setattr(VAE, "dream", remembered)
    config = Config(dataset="digits", algorithm="wake_sleep", latents=2, hidden=5, samples=300)
    vae.train(config, Run(tmp_path, torch.device("cpu"), {}, 0, progress=False))
    assert [len(x) for x, _ in dreams] == [100] * 3
    causes = [z for _, z in dreams]
    assert not torch.equal(causes[0], causes[1])
    assert not torch.equal(causes[1], causes[2])


def test_one_aevb_step_follows_the_map_objective():
    """Adagrad's first step is lr * g / (|g| + eps); with the sum it keeps, the gradient itself can be read off."""
    examples = 37
    model, x = model_of(BERNOULLI), greys(5)
    (adagrad,) = vae.optimizers(model, BERNOULLI, examples).values()
    eps = torch.randn(1, 5, J, generator=seeded())
    objective = estimator_b(model, x, eps).sum() * examples / 5  # eq. (8): N/M times the minibatch, plus log p(theta)
    for parameter in model.decoder.parameters():
        log_prior = Independent(Normal(torch.zeros_like(parameter), 1.0), parameter.dim())
        objective = objective + log_prior.log_prob(parameter)
    parameters = list(model.parameters())
    expected = torch.autograd.grad(-objective / examples, parameters)
    before = [p.detach().clone() for p in parameters]
    sgd_step(lambda batch: vae.negative_bound(model, batch, BERNOULLI, seeded()), adagrad, x)
    for p, old, gradient in zip(parameters, before, expected, strict=True):
        torch.testing.assert_close(adagrad.state[p]["sum"].sqrt(), gradient.abs())
        torch.testing.assert_close(p, old - BERNOULLI.step_size * gradient.sign())


@pytest.mark.parametrize("algorithm", ["aevb", "wake_sleep"])
def test_every_parameter_belongs_to_exactly_one_optimiser(algorithm):
    config = dataclasses.replace(BERNOULLI, algorithm=algorithm)
    model = model_of(config)
    owned = [
        p for each in vae.optimizers(model, config, 10).values() for group in each.param_groups for p in group["params"]
    ]
    assert len(owned) == len(list(model.parameters()))
    assert {id(p) for p in owned} == {id(p) for p in model.parameters()}


@pytest.mark.parametrize("algorithm", ["aevb", "wake_sleep"])
def test_training_raises_the_test_bound(tmp_path, algorithm):
    torch.set_default_dtype(torch.float32)
    config = Config(dataset="digits", algorithm=algorithm, latents=4, hidden=30, samples=20_000)
    model = vae.train(config, Run(tmp_path, torch.device("cpu"), {}, 0, progress=False))
    data = load("digits")
    x = vae.grey(data, data.test.x)
    start, end = (float(vae.bounds(m, x, 5, seed=0).mean()) for m in (vae.build(config), model))
    assert end > start + 3
    curve = [row["test_bound"] for row in read_metrics(tmp_path) if "test_bound" in row]
    assert curve[-1] == pytest.approx(end, abs=0.5)
    assert "bound" in read_metrics(tmp_path)[0]


def test_the_test_curve_chooses_nothing(tmp_path, monkeypatch):
    torch.set_default_dtype(torch.float32)
    config = Config(dataset="digits", latents=2, hidden=5, samples=12_000)
    trained = []
    for slope in (1.0, -1.0):  # a test bound that rises, and one that falls
        drawn = []

        def curve(model, x, z_samples, seed, drawn=drawn, slope=slope):
            drawn.append(slope * len(drawn))
            return torch.full((len(x),), drawn[-1])

        monkeypatch.setattr(vae, "bounds", curve)
        run = Run(tmp_path / str(slope), torch.device("cpu"), {}, 0, progress=False)
        trained.append(vae.train(config, run).state_dict())
        assert len(drawn) > 1
    for name, value in trained[0].items():
        assert torch.equal(value, trained[1][name]), name


# -- Reporting --------------------------------------------------------------------------------------------------------


def test_bounds_are_those_of_the_estimator_whatever_the_chunk():
    model, x = model_of(BERNOULLI), greys(7)
    ours = vae.bounds(model, x, 20_000, seed=0)
    torch.testing.assert_close(ours, estimator_b(model, x, noise(20_000, 7)), atol=0.05, rtol=0)
    assert ours.shape == (7,)


def test_every_example_of_an_evaluation_has_noise_of_its_own():
    values = vae.bounds(model_of(BERNOULLI), greys(1).expand(2500, D), 1, seed=0)  # one image, in several chunks
    assert len(values.unique()) == len(values)


def test_scores_are_of_the_examples_and_samples_that_they_name(tmp_path, monkeypatch):
    torch.set_default_dtype(torch.float32)
    config = Config(dataset="digits", latents=2, hidden=5, eval_z_samples=7)
    asked = []

    def spy(model, x, z_samples, seed):
        asked.append((x, z_samples))
        return torch.arange(len(x)).double()

    monkeypatch.setattr(vae, "bounds", spy)
    scores = vae.evaluate(config, vae.build(config), Run(tmp_path, torch.device("cpu"), {}, 0, progress=False))
    data = load("digits")
    images = {"test": data.test.x, "train": data.train.x[: len(data.test)]}
    assert [score.split for score in scores] == ["test", "train"]
    for (x, z_samples), score in zip(asked, scores, strict=True):
        assert torch.equal(x, vae.grey(data, images[score.split]))
        assert z_samples == 7
        assert "L=7" in score.protocol


def test_manifold_codes_are_even_in_probability():
    codes = vae.manifold_codes(4)
    expected = Normal(0.0, 1.0).icdf(torch.tensor([1 / 8, 3 / 8, 5 / 8, 7 / 8]))
    torch.testing.assert_close(codes.view(4, 4, 2)[0, :, 1], expected)
    torch.testing.assert_close(codes.view(4, 4, 2)[:, 0, 0], expected)


def test_grey_levels_are_scaled_by_the_number_of_levels():
    data = load("digits")
    x = vae.grey(data, data.test.x)
    assert x.shape == (len(data.test), 64)
    assert (x.min(), x.max()) == (0, 1)


def test_architecture_is_the_papers():
    def count(run):
        return sum(p.numel() for p in vae.build(PRESETS["paper"][run]).parameters())

    def mlp(inputs, hidden, *outputs):
        return (inputs + 1) * hidden + sum((hidden + 1) * out for out in outputs)

    assert count("mnist-nz20") == mlp(784, 500, 20, 20) + mlp(20, 500, 784)
    assert count("frey-nz10-ws") == mlp(560, 200, 10, 10) + mlp(10, 200, 560, 560)


def test_parameters_start_from_the_stated_normal():
    torch.set_default_dtype(torch.float32)
    weights = torch.cat([p.flatten() for p in vae.build(Config(latents=20)).parameters()])
    assert weights.mean().abs() < 5 * 0.1 / math.sqrt(len(weights))
    assert weights.std().item() == pytest.approx(0.1, rel=0.01)


def test_runs_that_are_compared_differ_only_in_what_is_compared():
    for runs in PRESETS.values():
        for name, config in runs.items():
            if name.endswith("-ws"):
                assert dataclasses.replace(config, algorithm="aevb") == runs[name.removesuffix("-ws")]
    for preset in ("laptop", "workstation", "paper"):
        ladder = [PRESETS[preset][f"mnist-nz{n}"] for n in (3, 5, 10, 20)]
        assert len({dataclasses.replace(config, latents=1) for config in ladder}) == 1


@pytest.mark.parametrize(
    "wrong",
    [{"latents": 0}, {"z_samples": 0}, {"eval_z_samples": 0}, {"samples": 99}, {"step_size": 0.0}, {"hidden": -1}],
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Config(**wrong)


@pytest.mark.parametrize("name", vae.PROBES)
def test_probe_passes(name):
    torch.set_default_dtype(torch.float32)
    result = vae.PROBES[name]()
    assert result.passed, result
