"""Classifier two-sample test: p-values that keep their word, shifts that are found, and no gain from unequal sides."""

from itertools import combinations

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from common.errors import ConfigError, DataError
from common.evaluation.bank import Bank
from common.evaluation.two_sample import Classifier, TwoSample, c2st, c2st_score, c2st_scores

both = pytest.mark.parametrize("classifier", ["logistic", "knn"])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=seeded(seed), dtype=torch.float64)


@pytest.mark.parametrize(("hits", "false_alarms"), [(3, 1), (4, 0), (2, 2), (0, 3), (0, 0), (4, 4)])
def test_the_p_value_counts_labellings(hits: int, false_alarms: int) -> None:
    """Of all ways to call 4 of 8 held-out examples samples: in how many does the classifier do as well or better?"""
    t, said = 4, hits + false_alarms
    as_good = [sum(place < said for place in chosen) >= hits for chosen in combinations(range(2 * t), t)]
    found = TwoSample(hits, false_alarms, t, 10)
    assert found.p_value == pytest.approx(np.mean(as_good), rel=1e-12)
    assert found.accuracy == (hits + (t - false_alarms)) / (2 * t)


def test_the_error_is_binomial_on_each_side() -> None:
    generator = np.random.default_rng(0)
    a, b, t = 0.9, 0.2, 50
    hits, alarms = generator.binomial(t, a, 4000), generator.binomial(t, b, 4000)
    found = [TwoSample(int(h), int(f), t, 50) for h, f in zip(hits, alarms, strict=True)]
    spread = np.std([each.accuracy for each in found])
    assert np.mean([each.stderr for each in found]) == pytest.approx(spread, rel=0.05)


@both
def test_of_one_distribution_p_values_are_uniform(classifier: Classifier) -> None:
    found = [
        c2st(normal(40, 3, 2 * s), normal(40, 3, 2 * s + 1), generator=seeded(s), classifier=classifier)
        for s in range(80)
    ]
    assert abs(np.mean([each.accuracy for each in found]) - 0.5) < 4 * 0.5 / np.sqrt(40 * 80)
    # The hypergeometric is discrete: spread each p-value evenly over the step it stands for.
    u = np.random.default_rng(0).random(80)
    steps = [scipy.stats.hypergeom.pmf(f.hits, 2 * f.t, f.t, f.hits + f.false_alarms) for f in found]
    p = np.array([each.p_value for each in found])
    assert scipy.stats.kstest(p - u * steps, "uniform").pvalue > 1e-3
    for level in (0.05, 0.2, 0.5):
        assert np.mean(p <= level) <= level + 3 * np.sqrt(level * (1 - level) / 80)


@both
def test_a_shift_is_found(classifier: Classifier) -> None:
    found = c2st(normal(200, 4) + 1, normal(200, 4, 1), generator=seeded(), classifier=classifier)
    best = scipy.stats.norm.cdf(1)  # of Gaussians that are 2 apart: Phi(1), by any classifier at most
    assert found.accuracy == pytest.approx(best, abs=0.07)
    assert found.p_value < 1e-6
    apart = c2st(normal(100, 4) + 100, normal(100, 4, 1), generator=seeded(), classifier=classifier)
    assert (apart.accuracy, apart.stderr) == (1, 0)


def test_neighbours_find_what_a_plane_cannot() -> None:
    ring = normal(400, 2)
    ring = 3 * ring / ring.norm(dim=1, keepdim=True)
    near, far = (c2st(ring, normal(400, 2, 1), generator=seeded(), classifier=c) for c in ("knn", "logistic"))
    assert near.accuracy > 0.85
    assert far.p_value > 1e-3


@both
@pytest.mark.parametrize(("n", "m"), [(300, 60), (60, 300)])
def test_unequal_sides_gain_nothing(n: int, m: int, classifier: Classifier) -> None:
    found = [
        c2st(normal(n, 2, 2 * s), normal(m, 2, 2 * s + 1), generator=seeded(s), classifier=classifier)
        for s in range(10)
    ]
    assert all((each.t, each.trained_on) == (30, 30) for each in found)
    assert abs(np.mean([each.accuracy for each in found]) - 0.5) < 4 * 0.5 / np.sqrt(60 * 10)  # and not 5/6


@both
def test_units_and_dead_features_do_not_matter(classifier: Classifier) -> None:
    y, x = normal(60, 3), normal(60, 3, 1) + 0.5
    units = torch.tensor([1e6, 1.0, 1e-6]).double()
    dead = torch.full((60, 1), 7.0).double()
    found = c2st(y, x, generator=seeded(), classifier=classifier)
    changed = c2st(
        torch.cat([y * units + units, dead], 1),
        torch.cat([x * units + units, dead], 1),
        generator=seeded(),
        classifier=classifier,
    )
    assert changed == found


def test_held_out_examples_teach_nothing() -> None:
    """With more dimensions than examples, whatever was trained on is known by heart."""
    for s in range(5):
        y, x = normal(20, 40, s), normal(20, 40, s + 100)
        found = c2st(y, x, generator=seeded(s))
        assert found.accuracy < 0.9


def banked(x: Tensor, source: str = "samples", network: str = "net@1") -> Bank:
    return Bank(network, source, "test").add(x)


def test_scores_say_what_they_depend_on() -> None:
    y, x = normal(41, 3) + 1, normal(30, 3, 1)
    first = c2st_scores(banked(y), banked(x, "MNIST test"), generator=seeded(), protocol="200 steps")
    assert first == c2st_scores(
        banked(y.flip(0)[:5]).add(y.flip(0)[5:]), banked(x, "MNIST test"), generator=seeded(), protocol="200 steps"
    )
    assert c2st_score(banked(y), banked(x, "MNIST test"), generator=seeded(), protocol="200 steps") == first[0]
    accuracy, p = first
    assert (accuracy.name, p.name) == ("c2st[net@1]", "c2st_p[net@1]")
    assert (accuracy.n, accuracy.split, accuracy.unit, p.unit, p.kind) == (30, "test", "share", "probability", "exact")
    assert accuracy.protocol == (
        "41 samples against 30 of MNIST test, features of net@1; logistic regression trained on 15 of each and tested "
        "on 15 of each; error binomial, the classifier as it is; 200 steps"
    )
    knn = c2st_scores(banked(y), banked(x), generator=seeded(), classifier="knn")
    assert "nearest neighbours" in knn[0].protocol


def test_what_cannot_be_is_refused() -> None:
    x = normal(12, 2)
    with pytest.raises(ConfigError, match="no classifier 'forest'"):
        c2st(x, x, generator=seeded(), classifier="forest")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="1 examples"):
        c2st(x, x[:1], generator=seeded())
    with pytest.raises(DataError, match="9 examples of samples are too few"):
        c2st_score(banked(x[:9]), banked(x), generator=seeded())
    with pytest.raises(DataError, match="net@2"):
        c2st_score(banked(x), banked(x, network="net@2"), generator=seeded())
