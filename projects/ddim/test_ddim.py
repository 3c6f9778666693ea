"""DDIM's mathematics: marginals, DDPM as a special case, the equation it solves, and the way back."""

import dataclasses
import functools
import hashlib
import itertools
import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from common import probes, weights
from common.data import Split, load
from common.data.centred import Centred
from common.errors import CheckpointError, ConfigError
from common.evaluation.features import raw_pixels
from common.evaluation.frechet import frechet_distance, moments
from common.experiment import Run
from common.nn import EpsilonDenoiser
from projects.ddim import ddim
from projects.ddim.ddim import (
    PRESETS,
    Config,
    encode,
    latent_distance,
    predict,
    sample,
    schedule,
    sigma,
    slerp,
    subsequence,
    trajectory,
)

MEAN, SPREAD = 0.1, 0.25
WHOLE = Config(spacing="linear")  # T = 1000
SMALL = Config("digits", base=8, multipliers=(1, 2), blocks=1, S=5, S_longer=10, samples=80, spacing="linear")


pytestmark = pytest.mark.usefixtures("double")


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def ideal(x, level):
    """The denoiser of N(MEAN, SPREAD^2)."""
    return MEAN + SPREAD**2 / (SPREAD**2 + level**2) * (x - MEAN)


def point(x, level):
    """The denoiser of a single point."""
    return torch.full_like(x, MEAN)


def network_of(config=SMALL, dtype=torch.float64):
    """An untrained network whose weights are far from zero."""
    network = ddim.build(config).to(dtype).eval()
    for i, p in enumerate(network.parameters()):
        with torch.no_grad():
            p.copy_(0.1 * noise(*p.shape, seed=i))
    return network


# -- The process and its sub-sequences ---------------------------------------------------------------------------------


@pytest.mark.parametrize("T", [1000, 200, 100])
def test_the_schedule_is_that_of_ddpm_and_ends_in_noise_for_every_T(T):
    alpha = schedule(Config(T=T, S=10, S_longer=10))
    assert alpha.dtype == torch.float64
    assert alpha[0] == 1
    assert (alpha.diff() < 0).all()
    assert 0 < alpha[-1] < 1e-3  # unscaled, T = 100 would leave 0.36
    product = 1.0
    for t in range(1, T + 1):
        product *= 1 - (1e-4 + (0.02 - 1e-4) * (t - 1) / (T - 1)) * 1000 / T
        assert float(alpha[t]) == pytest.approx(product, rel=1e-10)


@pytest.mark.parametrize("spacing", ["linear", "quadratic"])
@pytest.mark.parametrize(("T", "S"), [(1000, S) for S in (1, 7, 10, 30, 100, 333, 999, 1000)] + [(10, 4)])
def test_a_subsequence_begins_at_the_data_ends_at_T_and_never_stands_still(T, S, spacing):
    tau = subsequence(T, S, spacing)
    assert len(tau) == S + 1
    assert (tau[0], tau[-1]) == (0, T)
    assert all(later > earlier for earlier, later in itertools.pairwise(tau))


def test_subsequences_are_those_of_appendix_d2():
    for S in (7, 30, 100, 1000):
        assert subsequence(1000, S, "linear") == [math.floor(1000 * i / S + 1e-9) for i in range(S + 1)]
    for S in (10, 20, 30):  # no two squares closer than one step
        assert subsequence(1000, S, "quadratic") == [math.floor(1000 * i * i / S**2 + 1e-9) for i in range(S + 1)]
    assert subsequence(1000, 100, "quadratic")[:14] == [*range(11), 12, 14, 16]


@pytest.mark.parametrize("S", [3, 10, 30, 100])
def test_the_network_is_asked_at_every_time_of_the_subsequence_and_at_no_other(S):
    asked = []

    def network(x, t):
        asked.append(t.tolist())
        return torch.zeros_like(x)

    for spacing in ("linear", "quadratic"):
        config, asked = dataclasses.replace(WHOLE, spacing=spacing), []
        sample(ddim.denoiser_of(config, network), noise(2, 3), trajectory(config, S))
        assert asked == [[t, t] for t in reversed(subsequence(1000, S, spacing)[1:])]


# -- The family of samplers --------------------------------------------------------------------------------------------


def test_what_a_denoiser_says_is_turned_into_noise_and_back():
    alpha = schedule(WHOLE)
    network = lambda x, t: torch.sin(3 * x) + t[:, None] / 1000  # noqa: E731
    x_t = noise(4, 3)
    for t in (1, 2, 500, 1000):
        a = float(alpha[t])
        x0_hat, eps = predict(EpsilonDenoiser(network, alpha[1:]), x_t, a)
        torch.testing.assert_close(eps, network(x_t, torch.full((4,), t)), rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(x0_hat, (x_t - math.sqrt(1 - a) * eps) / math.sqrt(a), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("S", [1000, 50, 10])
def test_at_eta_1_the_variance_is_that_of_ddpms_posterior(S):
    alpha = trajectory(WHOLE, S)
    for a_s, a_t in itertools.pairwise(alpha):
        beta = 1 - a_t / a_s
        assert sigma(a_t, a_s, 1.0) ** 2 == pytest.approx(beta * (1 - a_s) / (1 - a_t), abs=1e-15)
        assert sigma(a_t, a_s, 0.5) == pytest.approx(sigma(a_t, a_s, 1.0) / 2)
        assert sigma(a_t, a_s, 0.0) == 0
    assert sigma(alpha[1], alpha[0], 1.0) == 0  # the last step


@pytest.mark.parametrize("larger", [False, True])
def test_at_eta_1_a_step_is_ddpms(larger):
    """Mean: eq. 7 of Ho et al. 2020. Variance: their beta-tilde, or their beta for hat-sigma, with x0_hat clipped."""
    x_t, a_0, a_s, a_t = noise(5, 2), 1.0, 0.9, 0.6
    beta, level = 1 - a_t / a_s, math.sqrt((1 - a_t) / a_t)
    wide = lambda x, level: 2 * ideal(x, level)  # noqa: E731
    x_t[0] = 40.0  # what is far out shows what is clipped
    x0_hat = wide(x_t / math.sqrt(a_t), level)
    assert x0_hat.max() > 1
    x0_hat = x0_hat.clamp(-1, 1) if larger else x0_hat
    mean = (math.sqrt(a_s) * beta * x0_hat + math.sqrt(a_t / a_s) * (1 - a_s) * x_t) / (1 - a_t)
    variance = beta if larger else beta * (1 - a_s) / (1 - a_t)
    expected = mean + math.sqrt(variance) * noise(5, 2, seed=3)

    asked = []

    def denoiser(x, level):
        asked.append(math.sqrt(a_s) * x)
        return wide(x, level)

    generator = torch.Generator().manual_seed(3)
    sample(denoiser, x_t, [a_0, a_s, a_t], eta=1.0, larger=larger, generator=generator)
    torch.testing.assert_close(asked[1], expected)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("larger", [False, True])
def test_the_last_step_adds_no_noise(eta, larger):
    for S in (1, 10, 1000):
        x = sample(point, noise(50, 2), trajectory(WHOLE, S), eta=eta, larger=larger)
        torch.testing.assert_close(x, torch.full_like(x, MEAN))


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_an_ideal_denoiser_is_sampled_at_first_order_and_all_marginals_are_kept(eta):
    def sampler(denoiser, x_T, steps, generator):
        return sample(denoiser, x_T, trajectory(WHOLE, steps), eta=eta, generator=generator)

    result = probes.sampler(sampler, steps=250, examples=10_000)
    assert result.passed, result
    assert result.numbers["randomness"] == ("no" if eta == 0 else "yes")


def test_hat_sigma_adds_more_noise_than_its_steps_account_for():
    def sampler(denoiser, x_T, steps, generator):
        return sample(denoiser, x_T, trajectory(WHOLE, steps), eta=1.0, larger=True, generator=generator)

    assert probes.sampler(sampler, steps=250, examples=10_000, marginals=False).passed
    assert "has not the noise of that level" in probes.sampler(sampler, steps=10, examples=10_000).detail


def test_without_noise_it_is_eulers_method_for_equation_14():
    alpha = trajectory(WHOLE, 20)
    x_T = noise(6, 2)
    x_bar = x_T / math.sqrt(alpha[-1])
    levels = [math.sqrt((1 - a) / a) for a in alpha]
    for lower, level in reversed(list(itertools.pairwise(levels))):
        eps = (x_bar - ideal(x_bar, level)) / level
        x_bar = x_bar + (lower - level) * eps  # eq. 13
    torch.testing.assert_close(sample(ideal, x_T, alpha), x_bar)


# -- The way back ------------------------------------------------------------------------------------------------------


def test_encoding_and_decoding_is_nearly_the_identity_the_more_so_the_more_steps():
    x_0 = MEAN + SPREAD * noise(200, 1)
    errors, lowest = [], float(schedule(WHOLE)[1])
    for S in (125, 250, 500, 1000):
        alpha = trajectory(WHOLE, S)
        errors.append(float((sample(ideal, encode(ideal, x_0, alpha, lowest), alpha) - x_0).abs().max()))
    orders = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert all(order > 0.85 for order in orders), (errors, orders)
    assert errors[-1] < 0.05 * SPREAD  # of the farthest of 200, three spreads away


def test_codes_are_those_of_the_exact_flow():
    """x_bar - MEAN grows like sqrt(SPREAD^2 + level^2): the codes of data are standard normal."""
    x_0, lowest = MEAN + SPREAD * noise(200, 1), float(schedule(WHOLE)[1])
    errors = []
    for S in (250, 500, 1000):
        alpha = trajectory(WHOLE, S)
        a_T = alpha[-1]
        exact = math.sqrt(a_T) * MEAN + (x_0 - MEAN) / SPREAD * math.sqrt(a_T * SPREAD**2 + 1 - a_T)
        errors.append(float((encode(ideal, x_0, alpha, lowest) - exact).abs().max()))
    assert all(a / b > 1.8 for a, b in itertools.pairwise(errors)), errors
    assert errors[-1] < 0.05


def test_a_code_of_a_shorter_way_is_decoded_from_where_it_ends():
    """Noised to level t means that denoising starts at t: a code of the middle is none of the end."""
    alpha, lowest = trajectory(WHOLE, 1000), float(schedule(WHOLE)[1])
    x_0 = MEAN + SPREAD * noise(50, 1)
    middle = encode(ideal, x_0, alpha[:501], lowest)
    assert float((sample(ideal, middle, alpha[:501]) - x_0).abs().max()) < 0.03 * SPREAD
    assert float((sample(ideal, middle, alpha[:502]) - x_0).abs().max()) > 1.02 * float(
        (sample(ideal, middle, alpha[:501]) - x_0).abs().max()
    )
    assert float((sample(ideal, middle, alpha[:401]) - x_0).abs().max()) > 0.03 * SPREAD


def test_the_network_is_never_asked_below_its_lowest_level():
    levels = []

    def denoiser(x, level):
        levels.append(level)
        return ideal(x, level)

    alpha, lowest = trajectory(WHOLE, 10), float(schedule(WHOLE)[1])
    encode(denoiser, noise(2, 1), alpha, lowest)
    expected = [math.sqrt((1 - a) / a) for a in [lowest, *alpha[1:-1]]]
    assert levels == pytest.approx(expected)


def test_slerp_turns_one_latent_into_the_other_at_constant_speed():
    a, b = noise(3, 2, 4), noise(3, 2, 4, seed=1)
    a, b = (x / x.flatten(1).norm(dim=1)[:, None, None] for x in (a, b))
    torch.testing.assert_close(slerp(a, b, 0.0), a)
    torch.testing.assert_close(slerp(a, b, 1.0), b)
    angle = (a * b).flatten(1).sum(1).acos()
    for weight in (0.1, 0.5, 0.9):
        between = slerp(a, b, weight)
        torch.testing.assert_close(between.flatten(1).norm(dim=1), torch.ones(3))
        torch.testing.assert_close((a * between).flatten(1).sum(1).acos(), weight * angle)
    assert float(slerp(noise(1, 4000), noise(1, 4000, seed=1), 0.5).square().mean()) == pytest.approx(1, abs=0.1)


# -- What is measured --------------------------------------------------------------------------------------------------


def test_latents_are_the_same_whatever_is_done_with_them():
    several = [dataclasses.replace(SMALL, S=S, eta=eta) for S in (5, 10) for eta in (0.0, 1.0)]
    first = ddim.latents(SMALL, 3)
    assert all(torch.equal(ddim.latents(config, 20)[:3], first) for config in several)
    assert not torch.equal(ddim.latents(dataclasses.replace(SMALL, seed=1), 3), first)


def test_the_noise_of_the_steps_is_not_the_latents(monkeypatch):
    """Generators of one seed would give the latents again."""
    config = dataclasses.replace(SMALL, eta=1.0, batch_size=200)
    x_T, seen = ddim.latents(config, 200), []

    def spy(x, level):
        seen.append(x / math.sqrt(level**2 + 1))
        return torch.zeros_like(x)

    monkeypatch.setattr(ddim, "denoiser_of", lambda config, network: spy)
    ddim.draw(config, network_of(), x_T, 2)
    _, a_s, a_t = trajectory(config, 2)
    s = sigma(a_t, a_s, 1.0)
    z = (seen[1] - math.sqrt((1 - a_s - s**2) / (1 - a_t)) * seen[0]) / s
    assert float(z.std()) == pytest.approx(1, abs=0.05)
    assert abs(float(torch.corrcoef(torch.stack([x_T.flatten(), z.flatten()]))[0, 1])) < 0.05


def test_images_do_not_depend_on_the_batch_size():
    network = network_of()
    whole = ddim.images(SMALL, network, 17, 7, 5)
    assert whole.shape == (7, 1, 8, 8)
    assert torch.equal(ddim.images(dataclasses.replace(SMALL, batch_size=3), network, 17, 7, 5), whole)
    assert torch.equal(ddim.images(SMALL, network, 17, 7, 5, stream=2), whole)
    noisy = dataclasses.replace(SMALL, eta=1.0)
    one, other = (ddim.images(noisy, network, 17, 7, 5, stream=stream) for stream in (1, 2))
    assert not torch.equal(one, whole)
    assert not torch.equal(one, other)


def test_every_batch_meets_noise_of_its_own(monkeypatch):
    config = dataclasses.replace(SMALL, eta=1.0, batch_size=1)
    monkeypatch.setattr(ddim, "latents", lambda config, n: noise(1, 1, 8, 8).expand(n, 1, 8, 8))
    one, other = ddim.images(config, network_of(config), 17, 2, 5)
    assert not torch.equal(one, other)


def test_the_distance_of_latents_is_zero_for_equal_images_and_one_for_unrelated_ones():
    x, y = noise(60, 1, 10, 10), noise(60, 1, 10, 10, seed=1)
    torch.testing.assert_close(latent_distance(x, x), torch.zeros(60), atol=1e-6, rtol=0)
    assert float(latent_distance(x, y).mean()) == pytest.approx(1, abs=0.02)
    others = [float((x[i] - y[j]).square().sum()) for i in range(60) for j in range(60) if i != j]
    expected = [float((x[i] - y[i]).square().sum()) / (sum(others) / len(others)) for i in range(60)]
    torch.testing.assert_close(latent_distance(x, y), torch.tensor(expected))


def run_in(directory, config):
    return Run(directory, torch.device("cpu"), {}, config.seed, progress=False)


@pytest.mark.usefixtures("single")
def test_scores_are_of_samples_of_reconstructions_and_of_latents(tmp_path):
    config = dataclasses.replace(SMALL, reconstructions=6, latents=5)
    network, run, data = network_of(config, torch.float32), run_in(tmp_path, config), load("digits")
    scores = {score.name: score for score in ddim.evaluate(config, network, run)}
    assert list(scores) == ["fd[raw-pixels]", "reconstruction_error", "latent_distance"]
    assert {score.weights for score in scores.values()} == {"ema"}

    alpha, denoiser = trajectory(config, 5), ddim.denoiser_of(config, network)
    x_0 = sample(denoiser, ddim.latents(config, 80), alpha)
    codes = ((x_0.clamp(-1, 1) + 1) * 8).round().to(torch.uint8)
    pixels = raw_pixels((1, 8, 8), 17)
    expected = frechet_distance(moments(pixels, codes), moments(pixels, data.train.x))
    assert scores["fd[raw-pixels]"].value == pytest.approx(expected, rel=1e-4)
    assert (scores["fd[raw-pixels]"].n, scores["fd[raw-pixels]"].split) == (80, "train")

    x_0 = data.test.x[:6].float() / 8 - 1
    back = sample(denoiser, encode(denoiser, x_0, alpha, float(schedule(config)[1])), alpha)
    each = ((back + 1) / 2 - data.test.x[:6].float() / 16).square().flatten(1).mean(1)
    torch.testing.assert_close(run.examples["reconstruction_error"], each, rtol=1e-4, atol=1e-5)
    assert scores["reconstruction_error"].value == pytest.approx(float(each.mean()), rel=1e-4)

    x_T = ddim.latents(config, 5)
    both = (Centred(17).decode(sample(denoiser, x_T, trajectory(config, S))).float() for S in (5, 10))
    torch.testing.assert_close(run.examples["latent_distance"], latent_distance(*both), rtol=1e-3, atol=1e-5)


@pytest.mark.usefixtures("single")
def test_latents_meet_other_noise_on_the_longer_way(tmp_path):
    """With the same noise for both, a latent would seem to decide what in truth the noise does."""
    config = dataclasses.replace(SMALL, eta=1.0, latents=5)
    network, run = network_of(config, torch.float32), run_in(tmp_path, config)
    ddim.evaluate(config, network, run)
    x = ddim.images(config, network, 17, 80, 5)[:5]
    same, other = (ddim.images(config, network, 17, 5, 10, stream=stream) for stream in (1, 2))
    torch.testing.assert_close(run.examples["latent_distance"], latent_distance(x.float(), other.float()))
    assert not torch.equal(same, other)


@pytest.mark.usefixtures("single")
@pytest.mark.parametrize(("name", "n"), [("cifar10", 15), ("mnist", 10)])
def test_samples_are_compared_with_what_the_network_was_trained_on(tmp_path, monkeypatch, name, n):
    data, seen = load("digits"), []
    few = {"train": 10, "val": 5, "test": 7}
    splits = {split: Split(getattr(data, split).x[:n]) for split, n in few.items()}
    monkeypatch.setattr(ddim, "load", lambda _: dataclasses.replace(data, name=name, **splits))
    monkeypatch.setattr(ddim, "images", lambda *_: torch.zeros(3, 1, 8, 8, dtype=torch.uint8))
    monkeypatch.setattr(ddim, "frechet_score", lambda features, codes, reference, **_: seen.append(len(reference)))
    ddim.evaluate(SMALL, network_of(SMALL, torch.float32), run_in(tmp_path, SMALL))
    assert seen == [n]


@pytest.mark.usefixtures("single")
def test_what_is_shown_are_the_first_samples(tmp_path, monkeypatch):
    shown = {}
    monkeypatch.setattr(ddim.plotting, "image_grid", lambda images, path, **_: shown.update({path.stem: images}))
    config = dataclasses.replace(SMALL, latents=5)
    network, run = network_of(config, torch.float32), run_in(tmp_path, config)
    ddim.illustrate(config, network, run)
    assert set(shown) == {"samples", "consistency", "interpolation", "reconstruction"}
    x_0 = ddim.draw(config, network, ddim.latents(config, 64), config.S)
    torch.testing.assert_close((shown["samples"] * 16).round(), ((x_0.clamp(-1, 1) + 1) * 8).round())
    x_T, x_0 = ddim.latents(config, 12), load("digits").test.x[:12].float() / 16
    of = lambda S: (ddim.draw(config, network, x_T, S) + 1) / 2  # noqa: E731
    same = functools.partial(torch.testing.assert_close, rtol=1e-3, atol=1e-3)
    same(shown["consistency"], torch.cat([of(S) for S in (10,)]))  # S_longer
    same(shown["interpolation"].view(6, 11, 1, 8, 8)[:, 0], of(5)[:6])
    same(shown["interpolation"].view(6, 11, 1, 8, 8)[:, -1], of(5)[6:])
    same(shown["reconstruction"][:12], x_0)
    same(shown["reconstruction"][12:], (ddim.reconstruct(config, network, 2 * x_0 - 1) + 1) / 2)
    longer = dataclasses.replace(config, S_longer=20)
    ddim.illustrate(longer, network, run)
    same(shown["consistency"], torch.cat([of(10), of(20)]))
    shown.clear()
    ddim.illustrate(dataclasses.replace(config, eta=1.0), network, run)
    assert set(shown) == {"samples", "consistency"}
    shown.clear()
    ddim.illustrate(dataclasses.replace(config, latents=0), network, run)
    assert set(shown) == {"samples"}


# -- The network -------------------------------------------------------------------------------------------------------


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A repository in which somebody has published weights; their network, and a configuration that names them."""
    torch.set_default_dtype(torch.float32)
    network = network_of(SMALL, torch.float32)
    path = tmp_path / "projects/ddpm/results/smoke/eps-simple/weights.safetensors"
    path.parent.mkdir(parents=True)
    save_file(network.state_dict(), path)
    find = weights.find
    monkeypatch.setattr(weights, "find", lambda address, sha256: find(address, sha256, root=tmp_path))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return network, dataclasses.replace(SMALL, weights="ddpm/smoke/eps-simple", weights_sha256=digest)


def test_the_weights_are_taken_as_they_are(published, tmp_path):
    network, config = published
    run = run_in(tmp_path, config)
    trained = ddim.train(config, run)
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in trained.state_dict().items())
    assert run.steps == 0
    assert not trained.training


def test_weights_of_another_digest_or_another_network_are_refused(published, tmp_path):
    _, config = published
    with pytest.raises(CheckpointError, match="SHA-256"):
        ddim.train(dataclasses.replace(config, weights_sha256="0" * 64), run_in(tmp_path, config))
    with pytest.raises(CheckpointError, match="another model"):
        ddim.train(dataclasses.replace(config, base=16), run_in(tmp_path, config))


PUBLISHED = [p for p in ("smoke", "laptop", "workstation") if (weights.ROOT / f"projects/ddpm/results/{p}").is_dir()]


@pytest.mark.parametrize("preset", PUBLISHED)
def test_presets_have_the_process_and_the_network_that_the_weights_were_trained_with(preset):
    for config in PRESETS[preset].values():
        path = weights.find(config.weights, config.weights_sha256)
        trained = json.loads(Path(path).with_name("record.json").read_text())["config"]
        assert (trained["predict"], trained["objective"]) == ("eps", "simple")
        ours = json.loads(json.dumps(dataclasses.asdict(config)))
        same = ("dataset", "T", "beta_1", "beta_T", "base", "multipliers", "blocks", "attention_at", "patch")
        assert {name: ours[name] for name in same} == {name: trained[name] for name in same}


def test_runs_of_a_preset_differ_in_the_sampler_alone():
    for preset, runs in PRESETS.items():
        for name, config in runs.items():
            kind = "hat" if config.larger else f"eta{config.eta:g}"
            assert name == f"{kind}-s{config.S}"
            first = next(iter(runs.values()))
            plain = {"S": 10, "eta": 0.0, "larger": False, "reconstructions": 0, "latents": 0, "samples": 1}
            assert dataclasses.replace(config, **plain) == dataclasses.replace(first, **plain), preset
            assert config.samples == next(each.samples for each in runs.values() if each.S == config.S)


@pytest.mark.parametrize(
    "wrong",
    [
        {"S": 0},
        {"S": 1001},
        {"S_longer": 1001},
        {"eta": -0.1},
        {"eta": 1.1},
        {"larger": True},
        {"eta": 0.5, "reconstructions": 1},
        {"beta_T": 1.0},
        {"samples": 0},
        {"latents": -1},
        {"latents": 60_000},
    ],
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ConfigError):
        Config(**wrong)


def test_every_probe_passes():
    for name, probe in ddim.PROBES.items():
        torch.set_default_dtype(torch.float32)
        assert probe().passed, name
