"""The demonstrations at small sizes: each against what is known of it, and each failing for the mistake it shows."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from common.data import load
from common.errors import ConfigError
from common.evaluation.known import expected_frechet, standard_normal
from common.evaluation.manifold import expected_coverage
from common.experiment import Run
from common.nn.bernoulli import BernoulliMixture
from common.records import Score
from projects.evaluation_pitfalls import evaluation_pitfalls as pitfalls
from projects.evaluation_pitfalls.evaluation_pitfalls import DEMONSTRATIONS, PRESETS, PROBES, Config

Measure = Callable[..., dict[str, Score]]


@pytest.fixture
def measure(tmp_path: Path) -> Measure:
    """Scores of one small run by name; those of the training split end in " train"."""

    def scores_of(demonstration: str, side: str = "", **settings: Any) -> dict[str, Score]:
        config = Config(demonstration, side, **settings)
        run = Run(tmp_path, torch.device("cpu"), {}, config.seed, progress=False)
        model = pitfalls.train(config, run).eval()
        scores = pitfalls.evaluate(config, model, run)
        pitfalls.illustrate(config, model, run)
        assert (tmp_path / "samples.png").stat().st_size > 0
        (tmp_path / "samples.png").unlink()
        for name, values in run.examples.items():
            (of,) = [s for s in scores if s.name == name]
            assert len(values) == of.n
            assert float(values.double().mean()) == pytest.approx(of.value)
        assert all(s.stderr is not None or s.kind == "exact" for s in scores)
        return {s.name + (" train" if s.split == "train" else ""): s for s in scores}

    return scores_of


DIGITS: dict[str, Any] = {"dataset": "digits", "n": 200, "components": 20, "passes": 4}


# -- Theis et al. ------------------------------------------------------------------------------------------------------


def test_noise_costs_log_100_and_a_table_of_images_everything(measure):
    mixture, noisy, table = (measure("likelihood", side, **DIGITS) for side in ("mixture", "noisy", "lookup"))
    assert noisy["nll_cost"].value == pytest.approx(math.log(100), abs=1e-4)
    cost = noisy["nll"].value - mixture["nll"].value  # in 64 dimensions noise itself explains some images a little
    assert math.log(100) - 0.01 < cost < math.log(100) + 1e-5
    assert table["nll"].value > noisy["nll"].value + 20
    fd = [found["fd[raw-pixels]"].value for found in (table, mixture, noisy)]
    assert fd == sorted(fd)
    assert table["copies[raw-pixels]"].value == 1
    assert table["copying[raw-pixels]"].value < mixture["copying[raw-pixels]"].value - 5


def test_test_images_are_not_trained_on(measure, monkeypatch):
    """Training sees the training split alone: with another test split, the same model."""
    config = Config("likelihood", "mixture", **DIGITS)
    data = load("digits")
    run = Run(Path("unused"), torch.device("cpu"), {}, 0, progress=False)
    before = pitfalls.train(config, run)
    monkeypatch.setattr(pitfalls, "load", lambda name: replace(data, test=replace(data.test, x=data.test.x * 0)))
    assert torch.equal(before.logits, pitfalls.train(config, run).logits)


def test_cluster_centres_are_the_means_of_their_examples_and_beat_them(measure):
    data, centres = (measure("parzen", side, **DIGITS | {"passes": 20}) for side in ("data", "k-means"))
    assert centres["parzen"].value > data["parzen"].value + 3
    assert centres["parzen"].protocol == data["parzen"].protocol


def test_windows_fall_short_of_a_known_density_and_less_so_with_more_of_them(measure):
    settings = {"dataset": "digits", "m": 300}
    exact = measure("patches", "exact", **settings)["log_density"]
    few, many = (measure("patches", "parzen", n=n, **settings)["log_density"] for n in (100, 3000))
    assert exact.kind == "exact"
    assert few.kind == "estimate"
    assert exact.value > many.value + 5 > few.value + 5


def test_an_image_is_its_own_neighbour_until_it_is_shifted(measure):
    shares = [measure("shift", dataset="digits", n=150, shift=s)["self_neighbour train"].value for s in (0, 1, 2)]
    assert shares[0] == 1
    assert shares == sorted(shares, reverse=True)
    assert shares[1] < 0.5


# -- The decoder -------------------------------------------------------------------------------------------------------


def test_three_estimates_of_one_decoder(measure):
    settings = {"dataset": "digits", "hidden": (8, 16), "latents": 2, "passes": 2, "m": 12, "n": 300, "k": 200}
    settings |= {"chains": 4, "temperatures": 15}
    found = {side: measure("decoder", side, **settings) for side in ("ais", "bound", "parzen")}
    annealed, bound = (found[side]["log_density"] for side in ("ais", "bound"))
    assert annealed.kind == bound.kind == "bound"
    assert found["parzen"]["log_density"].kind == "estimate"
    assert abs(annealed.value - bound.value) < 2  # of two latent variables either is nearly exact
    assert len({f["log_density"].protocol for f in found.values()}) == 1
    assert -1 < found["ais"]["bdmc_gap"].value < 3
    assert abs(found["ais"]["bound_gap_growth"].value) < 3


# -- Known distributions -----------------------------------------------------------------------------------------------


def test_a_frechet_distance_of_nothing_is_its_bias_and_a_kernel_distance_is_none(measure):
    found = measure("gaussians", n=400, m=400, dims=8, repetitions=60)
    fd, kid = found["fd[gaussian-8d]"], found["kid[gaussian-8d]"]
    assert abs(fd.value - expected_frechet(8, 400, 400)) < 4 * fd.stderr + 0.02 * fd.value
    assert abs(kid.value) < 4 * kid.stderr
    assert kid.unit == "MMD²"


def test_extrapolation_finds_the_distance_that_few_samples_exaggerate(measure):
    found = measure("gaussians", n=400, m=20_000, dims=8, distance=0.5, repetitions=20)
    fd, extrapolated = found["fd[gaussian-8d]"], found["fd_infinity[gaussian-8d]"]
    assert fd.value > 0.5 + 3 * fd.stderr
    assert abs(extrapolated.value - 0.5) < 4 * extrapolated.stderr + 0.02


def test_rectified_normals_are_ordered_by_their_moments_and_measured_with_a_bias(measure):
    first, second = (measure("relu", side, n=4000, dims=16, repetitions=25) for side in ("p1", "p2"))
    for found in (first, second):
        true, fd = found["fd_true"].value, found["fd[relu-16d]"]
        assert abs(fd.value - true) < 4 * fd.stderr + 0.02
        assert fd.stderr < 0.1
    assert first["fd_true"].value == pytest.approx(16 * (1123.0447 / 2048), rel=1e-4)  # coordinates are independent
    assert second["fd[relu-16d]"].protocol == first["fd[relu-16d]"].protocol


def test_one_distribution_scores_the_closed_form_and_one_outlier_fools_precision_alone(measure):
    settings = {"n": 1000, "m": 1000}
    same, far, outlier = (measure("manifold", side, **settings) for side in ("same", "far", "outlier"))
    coverage = same["coverage[gaussian-64d]"]
    assert abs(coverage.value - expected_coverage(1000, 1000, 5)) < 4 * coverage.stderr
    for name in ("precision", "recall"):
        assert far[f"{name}[gaussian-64d]"].value == 0
        assert outlier[f"{name}[gaussian-64d]"].value > 0.99
    assert far["density[gaussian-64d]"].value == far["coverage[gaussian-64d]"].value == 0
    assert outlier["density[gaussian-64d]"].value == pytest.approx(0.2, abs=0.001)
    assert outlier["coverage[gaussian-64d]"].value == pytest.approx(1 / 1000, abs=1e-9)


# -- Images ------------------------------------------------------------------------------------------------------------


def test_a_memoriser_is_perfect_against_what_it_has_seen_and_is_caught(measure):
    memoriser, unseen = (measure("split", side, dataset="digits", n=500) for side in ("memoriser", "unseen"))
    assert memoriser["fd[raw-pixels] train"].value == pytest.approx(0, abs=1e-9)
    assert unseen["fd[raw-pixels] train"].value > 0.1
    assert memoriser["copies[raw-pixels]"].value == 1
    assert memoriser["copying[raw-pixels]"].value < -15
    assert abs(unseen["copying[raw-pixels]"].value) < 5


def test_smaller_images_without_antialiasing_score_worse(measure):
    fine, coarse = (measure("resize", side, dataset="digits") for side in ("antialiased", "aliased"))
    assert fine["fd[raw-pixels]"].protocol == coarse["fd[raw-pixels]"].protocol
    assert fine["fd[raw-pixels]"].value < coarse["fd[raw-pixels]"].value


@pytest.mark.parametrize(("side", "bias", "broken"), [("round", 0, 0), ("floor", -0.5, 0), ("signed", -0.5, 63)])
def test_rounding_down_is_half_a_level_and_no_perfect_score(measure, side, bias, broken):
    found = measure("quantise", side, dataset="digits", n=300)
    assert found["code_bias"].value == pytest.approx(bias, abs=5 * found["code_bias"].stderr)
    assert found["codes_broken"].value == broken
    assert (found["fd[raw-pixels]"].value > 1e-5) == (side != "round")


# -- The rest ----------------------------------------------------------------------------------------------------------


def test_a_run_s_random_numbers_are_its_seed_s():
    config = Config("gaussians", seed=1)
    draws = [standard_normal(3, 2, pitfalls.seeded(c, p)) for c, p in ((config, 1), (config, 1), (config, 2))]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert not torch.equal(draws[0], standard_normal(3, 2, pitfalls.seeded(replace(config, seed=2), 1)))


def test_every_demonstration_is_in_laptop_with_all_its_sides():
    found = {(c.demonstration, c.side) for c in PRESETS["laptop"].values()}
    assert found == {(name, side) for name, (_, sides) in DEMONSTRATIONS.items() for side in sides}
    assert all(json.loads(json.dumps(vars(c))) for runs in PRESETS.values() for c in runs.values())
    assert all(c.dataset in ("digits", "") for c in PRESETS["smoke"].values())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"demonstration": "parsen"}, "there are likelihood, parzen"),
        ({"demonstration": "parzen", "side": "gan"}, "'data', 'k-means'"),
        ({"demonstration": "gaussians", "n": 0}, "n = 0: it is at least 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        Config(**settings)


def test_the_mixture_is_learnt():
    config = Config("likelihood", "mixture", **DIGITS)
    x, _ = pitfalls.as_bits(load("digits"))
    run = Run(Path("unused"), torch.device("cpu"), {}, 0, progress=False)
    before, after = pitfalls.build(config), pitfalls.train(config, run)
    assert isinstance(before, BernoulliMixture)
    assert float(after.log_prob(x).mean()) > float(before.log_prob(x).mean()) + 10


@pytest.mark.parametrize("name", PROBES)
def test_probes_pass(name):
    assert PROBES[name]().passed
