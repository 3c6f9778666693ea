"""The mathematics of importance weighted autoencoders, on models small enough to know the answer."""

import dataclasses
import json
import math

import pytest
import torch
from torch.distributions import Bernoulli, Independent, Normal

from common.data import Batches, Binarise, Data, Split, load
from common.errors import ConfigError
from common.evaluation.likelihood import importance_log_likelihood
from common.experiment import Run
from projects.iwae import iwae
from projects.iwae.iwae import IWAE, PRESETS, Config, active_units, active_units_stderr, learning_rate, objective

ONE = Config(k=4, stochastic=(2,), hidden=(5,))
TWO = Config(k=4, stochastic=(3, 2), hidden=(5, 4))


def model_of(config: Config, dims: int = 6) -> IWAE:
    """A model in float64 with weights far from zero, so that its posterior is not its prior."""
    torch.manual_seed(1)
    model = IWAE(config, dims).double()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.4)
    return model


pytestmark = pytest.mark.usefixtures("double")


def bits(n: int, dims: int = 6, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 2, (n, dims), generator=torch.Generator().manual_seed(seed)).double()


@pytest.mark.parametrize("config", [ONE, TWO], ids=["1 layer", "2 layers"])
def test_log_weights_are_log_p_minus_log_q_written_out(config):
    model, x, k = model_of(config), bits(3), 4
    log_w = model.log_weights(x, k, torch.Generator().manual_seed(5))

    expected = torch.zeros(k, len(x))
    for b in range(len(x)):  # one example at a time, torch.distributions for every density
        noise = torch.Generator().manual_seed(5)  # the same draws, layer by layer
        eps = [torch.randn(k, len(x), units, generator=noise)[:, b] for units in config.stochastic]
        for i in range(k):
            below, log_q, hs = x[b], 0.0, []
            for layer, e in zip(model.recognition, eps, strict=True):
                mean, log_var = layer(below)
                q = Independent(Normal(mean, (log_var / 2).exp()), 1)
                below = mean + (log_var / 2).exp() * e[i]
                log_q = log_q + q.log_prob(below)
                hs.append(below)
            log_p = Independent(Normal(torch.zeros(2), torch.ones(2)), 1).log_prob(hs[-1])
            for layer, h, above in zip(model.generation, hs[:-1], hs[1:], strict=True):
                mean, log_var = layer(above)
                log_p = log_p + Independent(Normal(mean, (log_var / 2).exp()), 1).log_prob(h)
            log_p = log_p + Independent(Bernoulli(logits=model.pixels(hs[0])), 1).log_prob(x[b])
            expected[i, b] = log_p - log_q
    torch.testing.assert_close(log_w, expected)


def test_iwae_gradient_weighs_each_sample_by_its_normalised_weight():
    model, x = model_of(ONE), bits(3)
    parameters = list(model.parameters())
    log_w = model.log_weights(x, 4, torch.Generator().manual_seed(0))
    got = torch.autograd.grad(objective(log_w, "iwae").sum(), parameters, retain_graph=True)
    normalised = (log_w - log_w.logsumexp(0)).exp().detach()  # w_i / sum_j w_j
    expected = torch.autograd.grad((normalised * log_w).sum(), parameters)
    for g, e in zip(got, expected, strict=True):
        torch.testing.assert_close(g, e)


def test_what_is_reported_is_the_bound_and_not_a_surrogate():
    log_w = torch.tensor([[0.0, math.log(3.0)], [math.log(4.0), math.log(5.0)]])
    torch.testing.assert_close(objective(log_w, "iwae"), torch.tensor([2.5, 4.0]).log())
    torch.testing.assert_close(objective(log_w, "vae"), torch.tensor([4.0, 15.0]).log() / 2)


def test_objectives_agree_at_k_1_and_the_iwae_bound_is_never_looser():
    model, x = model_of(TWO), bits(50)
    one = model.log_weights(x, 1, torch.Generator().manual_seed(0))
    torch.testing.assert_close(objective(one, "iwae"), objective(one, "vae"))
    many = model.log_weights(x, 10, torch.Generator().manual_seed(0))
    assert (objective(many, "iwae") >= objective(many, "vae")).all()


@pytest.mark.parametrize("config", [ONE, dataclasses.replace(TWO, stochastic=(1, 1))], ids=["1 layer", "2 layers"])
def test_the_bound_converges_to_log_p_by_quadrature(config):
    model, x = model_of(config), bits(8)
    log_p = iwae.log_prob_by_quadrature(model, x)
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack(
        [importance_log_likelihood(model.log_weights, x, k=4000, generator=generator) for _ in range(8)]
    )
    mean, stderr = draws.mean(0), draws.std(0) / math.sqrt(len(draws))
    assert ((mean - log_p).abs() < 5 * stderr + 1e-3).all()


@pytest.mark.parametrize("config", [ONE, dataclasses.replace(TWO, stochastic=(1, 1))], ids=["1 layer", "2 layers"])
def test_probabilities_of_all_images_sum_to_one(config):
    model = model_of(config, dims=4)
    every = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 4)
    torch.testing.assert_close(iwae.log_prob_by_quadrature(model, every).exp().sum(), torch.tensor(1.0))


@pytest.mark.parametrize("config", [ONE, dataclasses.replace(TWO, stochastic=(1, 1))], ids=["1 layer", "2 layers"])
def test_samples_follow_the_model(config):
    """p(x), for all images, is the mean of p(x|h) over the draws of h."""
    model, n = model_of(config, dims=4), 20_000
    for layer in model.generation:  # far from 1 a deviation cannot pass for a variance
        torch.nn.init.constant_(layer.log_var.bias, -2.0)
    pixels = model.sample(n, generator=torch.Generator().manual_seed(0))[:, None]
    every = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 4)
    given_h = (every * pixels + (1 - every) * (1 - pixels)).prod(-1)
    expected, stderr = iwae.log_prob_by_quadrature(model, every).exp(), given_h.std(0) / math.sqrt(n)
    assert ((given_h.mean(0) - expected).abs() < 5 * stderr).all()


def test_the_bound_of_an_image_does_not_depend_on_its_neighbours():
    model, x = model_of(TWO), bits(7)

    def alone(image):
        return importance_log_likelihood(model.log_weights, image, k=20_000, generator=torch.Generator().manual_seed(0))

    together = alone(x)
    one_by_one = torch.cat([alone(image[None]) for image in x])
    torch.testing.assert_close(together, one_by_one, atol=0.05, rtol=0)


def test_schedule_is_the_papers():
    config = Config()
    assert config.passes == tuple(3**i for i in range(8))
    assert sum(config.passes) == 3280
    rates = [learning_rate(config, epoch) for epoch in range(3280)]
    assert rates == [1e-3 * 10 ** (-stage / 7) for stage in range(8) for _ in range(3**stage)]
    assert rates[-1] == pytest.approx(1e-4)


def test_architecture_is_the_papers():
    def mlp(a, h, *outs):
        return (a + 1) * h + (h + 1) * h + sum((h + 1) * o for o in outs)

    def count(run):
        return sum(p.numel() for p in iwae.build(PRESETS["paper"][run]).parameters())

    assert count("iwae-1l-k50") == mlp(784, 200, 50, 50) + mlp(50, 200, 784)
    recognition = mlp(784, 200, 100, 100) + mlp(100, 100, 50, 50)
    assert count("iwae-2l-k50") == recognition + mlp(50, 100, 100, 100) + mlp(100, 200, 784)


def test_hidden_units_are_tanh():
    layers, x = iwae.tanh_layers(6, 4), bits(3)
    torch.testing.assert_close(layers(x), torch.tanh(layers[2](torch.tanh(layers[0](x)))))


@pytest.mark.parametrize("log_var", [-40.0, 40.0])
def test_a_variance_may_be_as_small_and_as_large_as_the_network_says(log_var):
    layer = model_of(ONE).recognition[0]
    torch.nn.init.zeros_(layer.log_var.weight)
    torch.nn.init.constant_(layer.log_var.bias, log_var)
    assert (layer(bits(3))[1] == log_var).all()


def test_active_units_are_those_whose_mean_has_a_variance_above_a_hundredth():
    x = torch.randn(1001, 1)
    unit = (x - x.mean()) / x.std()
    layer = torch.cat([unit * math.sqrt(v) for v in (0.0, 0.009, 0.011, 1.0)], 1)
    assert active_units([layer, layer[:, :3]]) == [2, 1]


def test_the_error_of_a_count_is_that_of_its_units_near_the_threshold():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1001, 3, generator=generator).double()
    unit = (x - x.mean(0)) / x.std(0)
    clear, doubtful = unit[:, :1].repeat(1, 4) * torch.tensor([0.0, 0.01, 1.0, 2.0]), unit[:, 1:] * 0.1
    in_all, first, second = active_units_stderr([clear, doubtful], generator, 1000)
    assert first == 0
    # Each doubtful unit is counted in about half of all resamples, independently of the other: a variance of 1/4 each.
    assert second == pytest.approx(math.sqrt(0.5), abs=0.05)
    assert in_all == pytest.approx(second)


def test_posterior_means_of_the_second_layer_average_over_the_first():
    model, x = model_of(TWO), bits(6)
    with torch.no_grad():  # a second layer that is linear in h_1 far from saturation: E[mean(h_1)] = mean(E[h_1])
        for p in model.recognition[1].body.parameters():
            p.mul_(1e-3)
    first, second = model.posterior_means(x, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(first, model.recognition[0](x)[0])
    torch.testing.assert_close(second, model.recognition[1](first)[0], atol=1e-5, rtol=0)
    # and where it is not linear, the mean of means is not the mean at the mean, but the average over draws is
    model = model_of(TWO)
    _, second = model.posterior_means(x, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        mean, log_var = model.recognition[0](x)
    h = mean + (0.5 * log_var).exp() * torch.randn(20_000, *mean.shape, generator=torch.Generator().manual_seed(1))
    means = model.recognition[1](h)[0].detach()
    exact, spread = means.mean(0), means.std(0)
    assert ((second - exact).abs() < 5 * spread / 10).all()


def test_pixels_start_at_the_mean_image():
    torch.set_default_dtype(torch.float32)
    model, mean = IWAE(ONE, 4), torch.tensor([0.1, 0.5, 0.9, 0.0])
    model.init_output_bias(mean)
    torch.testing.assert_close(model.pixels[-1].bias.sigmoid(), mean.clamp(0.001, 0.999))


@pytest.mark.parametrize(
    "wrong",
    [
        {"k": 0},
        {"eval_k": 0},
        {"stochastic": (50, 20)},
        {"batch_size": 0},
        {"passes": ()},
        {"passes": (1, 0)},
        {"learning_rate": 0.0},
        {"objective": "elbo"},
    ],
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ConfigError):
        Config(**wrong)


def test_defaults_are_the_papers():
    config = Config()
    assert (config.k, config.batch_size, config.eval_k) == (50, 20, 5000)
    assert (config.learning_rate, config.adam_epsilon) == (1e-3, 1e-4)


def test_a_configuration_survives_a_record():
    config = Config(stochastic=(100, 50), hidden=(200, 100))
    assert (
        iwae.build(Config(**json.loads(json.dumps(dataclasses.asdict(config))))).recognition[1].mean.out_features == 50
    )


def test_initialisation_is_glorots():
    torch.set_default_dtype(torch.float32)
    for module in iwae.build(Config()).modules():
        if isinstance(module, torch.nn.Linear):
            bound = math.sqrt(6 / (module.in_features + module.out_features))
            assert bound * 0.98 < module.weight.abs().max() <= bound
            assert not module.bias.any()


def test_the_seed_decides_the_initial_weights():
    one, same, other = (iwae.build(Config(seed=seed)).recognition[0].body[0].weight for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_rows_of_a_table_differ_in_objective_k_and_layers_alone():
    for runs in PRESETS.values():
        for dataset in {config.dataset for config in runs.values()}:
            rows = [config for config in runs.values() if config.dataset == dataset]
            compared = {"objective": "iwae", "k": 1, "stochastic": (50,), "hidden": (200,)}
            assert len({dataclasses.replace(config, **compared) for config in rows}) == 1


DIGITS = Config(
    dataset="digits", k=3, stochastic=(4,), hidden=(8,), passes=(1, 3), learning_rate=2e-3, batch_size=100, eval_k=50
)


def run_in(directory, config):
    return Run(directory, torch.device("cpu"), {}, config.seed, progress=False)


def test_training_is_adam_on_the_objective_at_the_papers_rates(tmp_path, monkeypatch):
    torch.set_default_dtype(torch.float32)
    config = dataclasses.replace(DIGITS, objective="vae")
    seen = []

    def spy(log_w, which):
        seen.append((log_w.shape[0], which))
        return objective(log_w, which)

    rates = []
    step = torch.optim.Adam.step
    monkeypatch.setattr(iwae, "objective", spy)
    monkeypatch.setattr(
        torch.optim.Adam, "step", lambda self, *a: (rates.append(self.param_groups[0]["lr"]), step(self, *a))[1]
    )
    trained = iwae.train(config, run_in(tmp_path, config))
    updates = len(rates) // 4
    assert set(seen) == {(3, "vae")}
    assert rates[:updates] == [2e-3] * updates
    assert rates[updates:] == [2e-3 * 10 ** (-1 / 7)] * (3 * updates)

    # the same by hand, from the same start, on the same draws
    data = load("digits")
    model = iwae.build(config)
    model.init_output_bias(data.trainval.x.flatten(1).double().mean(0).div(16).float())
    batches, generator = Batches(data.trainval, 100, seed=0), torch.Generator().manual_seed(0)
    adam = torch.optim.Adam(model.parameters(), lr=1e-3, betas=(0.9, 0.999), eps=1e-4)
    for number in range(len(rates)):
        adam.param_groups[0]["lr"] = rates[number]
        x, _ = Binarise(17).encode(batches(number).x.flatten(1), generator)
        adam.zero_grad()
        (-model.log_weights(x, 3, generator).mean()).backward()
        step(adam)
    for a, b in zip(trained.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)


def test_evaluation_reports_the_negative_bound_on_the_examples_asked_for(tmp_path):
    torch.set_default_dtype(torch.float32)
    config = dataclasses.replace(DIGITS, eval_examples=37, stochastic=(4, 2), hidden=(8, 8))
    model, run = iwae.build(config), run_in(tmp_path, config)
    scores = {score.name: score for score in iwae.evaluate(config, model, run)}
    nll = scores["nll"]
    assert nll.n == len(run.examples["nll"]) == 37
    assert nll.value == pytest.approx(float(run.examples["nll"].mean()))
    assert nll.kind == "bound"
    assert nll.protocol == "digits, L_50, 37 test examples"
    x, _ = Binarise(17).encode(load("digits").test.x[:37].flatten(1))
    with torch.no_grad():
        one = -model.elbo(x, k=50, generator=torch.Generator().manual_seed(9)).mean()
    assert nll.value == pytest.approx(float(one), abs=3 * nll.stderr)
    assert 20 < nll.value < 80  # an untrained model of 64 pixels: near 64 log 2, and positive
    assert scores["active_units"].value == scores["active_units_1"].value + scores["active_units_2"].value
    assert all(score.stderr is not None for score in scores.values())
    assert list(run.data) == ["digits"]


def test_what_is_scored_are_the_test_images_by_as_many_samples_as_the_protocol_says(tmp_path, monkeypatch):
    torch.set_default_dtype(torch.float32)
    config = dataclasses.replace(DIGITS, eval_k=5000, eval_examples=137)
    asked = []

    def spy(log_weights, x, *, k, generator):
        asked.append((x, k))
        return torch.zeros(len(x))

    monkeypatch.setattr(iwae, "importance_log_likelihood", spy)
    scores = iwae.evaluate(config, iwae.build(config), run_in(tmp_path, config))
    xs, ks = zip(*asked, strict=True)
    every, _ = Binarise(17).encode(load("digits").test.x.flatten(1), torch.Generator().manual_seed(0))
    assert torch.equal(torch.cat(xs), every[:137])
    assert set(ks) == {5000}
    assert "L_5000" in scores[0].protocol


def test_the_samples_shown_are_the_first_that_the_seed_gives(tmp_path, monkeypatch):
    torch.set_default_dtype(torch.float32)
    shown = []
    monkeypatch.setattr(iwae.plotting, "image_grid", lambda images, *_, **__: shown.append(images))
    model = iwae.build(DIGITS)
    iwae.illustrate(DIGITS, model, run_in(tmp_path, DIGITS))
    expected = model.sample(64, generator=torch.Generator().manual_seed(DIGITS.seed + 2))
    torch.testing.assert_close(shown[0].flatten(1), expected)


def test_the_fixed_binarisation_trains_on_fifty_thousand():
    images = torch.zeros(5, 1, 2, 2, dtype=torch.uint8)
    parts = (Split(images[:3]), Split(images[:2]), Split(images))
    assert len(iwae.training_split(Data("binarized_mnist", *parts, 2, "", ""))) == 3
    assert len(iwae.training_split(Data("dynamic_mnist", *parts, 256, "", ""))) == 5


def test_every_preset_can_be_built():
    for runs in PRESETS.values():
        for config in runs.values():
            iwae.build(config)
