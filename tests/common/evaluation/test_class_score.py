"""The class score: closed forms, its bias, and errors that are as large as they say."""

import math

import pytest
import torch
from torch import Tensor

from common.errors import ConfigError, DataError
from common.evaluation.bank import Bank, bank
from common.evaluation.class_score import CLASSIFIERS, class_score, classifier, from_log_probs
from common.evaluation.features import lenet


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sure(classes: Tensor, k: int) -> Tensor:
    """log p(y|x) (n, k) of a classifier that is sure of these classes (n,): -1000 stands for what it rules out."""
    return torch.where(torch.eye(k, dtype=torch.bool)[classes], 0.0, -1000.0).double()


def log_probs(n: int, k: int, seed: int = 0, spread: float = 2.0) -> Tensor:
    return (spread * torch.randn(n, k, generator=seeded(seed), dtype=torch.float64)).log_softmax(1)


def banked(x: Tensor, network: str = "lenet-mnist@a24bccc1/classes") -> Bank:
    return Bank(network, "samples", "test").add(x)


# -- The score --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [2, 7])
def test_clear_and_even_is_the_number_of_classes(k: int) -> None:
    assert from_log_probs(sure(torch.arange(5 * k) % k, k)) == pytest.approx(k, rel=1e-12)


def test_saying_the_same_of_all_is_one() -> None:
    assert from_log_probs(torch.full((6, 4), 0.25).double().log()) == pytest.approx(1, rel=1e-12)
    assert from_log_probs(sure(torch.zeros(6, dtype=torch.long), 4)) == pytest.approx(1, rel=1e-12)
    assert from_log_probs(log_probs(1, 5).expand(9, 5)) == pytest.approx(1, rel=1e-12)


def test_uneven_classes_count_by_their_entropy() -> None:
    """Three quarters of one class and a quarter of another: exp of the entropy of (3/4, 1/4)."""
    exact = (4 / 3) ** 0.75 * 4**0.25
    assert from_log_probs(sure(torch.tensor([0, 0, 1, 0]), 3)) == pytest.approx(exact, rel=1e-12)


def test_it_is_the_divergence_as_the_paper_writes_it() -> None:
    p = log_probs(20, 5).exp().tolist()
    mean = [math.fsum(row[k] for row in p) / 20 for k in range(5)]
    divergence = math.fsum(row[k] * math.log(row[k] / mean[k]) for row in p for k in range(5)) / 20
    assert from_log_probs(log_probs(20, 5)) == pytest.approx(math.exp(divergence), rel=1e-12)


def test_few_samples_make_it_too_small_as_stated() -> None:
    k, n = 5, 60
    classes = torch.randint(k, (400, n), generator=seeded())
    values = torch.tensor([from_log_probs(sure(row, k)) for row in classes])
    off = float(values.mean()) / k - 1
    assert off == pytest.approx(-(k - 1) / (2 * n), rel=0.25)


# -- The classifiers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "shape"), [("lenet-mnist", (1, 28, 28)), ("efficientnet-lite0", (3, 24, 24))])
def test_a_classifier_gives_log_probabilities(name: str, shape: tuple[int, ...]) -> None:
    codes = torch.randint(0, 256, (3, *shape), generator=seeded(), dtype=torch.uint8)
    network = classifier(name)
    found = network(codes)
    assert found.shape == (3, network.dims)
    torch.testing.assert_close(found.exp().sum(1), torch.ones(3).double(), rtol=1e-9, atol=0)
    assert network.name.startswith(f"{name}@")
    score = class_score(bank(network, codes, source="samples", split="test"), generator=seeded())
    assert score.name == f"class_score[{network.name.removesuffix('/classes')}]"
    with pytest.raises(DataError, match="takes"):
        network(codes[:, :, :5] if name.startswith("lenet") else codes[:, :1])


def test_a_lenet_tells_its_classes() -> None:
    """The last layer on the features: of a picture of a 1, drawn here, MNIST's says 1."""
    drawn = torch.zeros(1, 1, 28, 28, dtype=torch.uint8)
    drawn[..., 5:23, 13:15] = 255
    assert int(classifier("lenet-mnist")(drawn).argmax()) == 1
    assert classifier("lenet-mnist").name == f"{lenet('mnist').name}/classes"


def test_an_unknown_classifier_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"no classifier 'raw-pixels'\. There are: lenet-mnist"):
        classifier("raw-pixels")
    with pytest.raises(ConfigError, match="Did you mean 'lenet-mnist'"):
        classifier("lenet_mnist")
    assert "inception" not in CLASSIFIERS


# -- The Score --------------------------------------------------------------------------------------------------------


def test_errors_are_the_spread_over_samples() -> None:
    n = 150
    found = [class_score(banked(part), generator=seeded(1), resamples=50) for part in log_probs(120 * n, 4).split(n)]
    spread = torch.tensor([score.value for score in found]).std()
    stated = torch.tensor([score.stderr or 0 for score in found]).square().mean().sqrt()
    assert float(stated / spread) == pytest.approx(1, abs=0.25)


def test_it_says_what_decides_it() -> None:
    score = class_score(banked(log_probs(50, 4)), generator=seeded(), protocol="gamma 2.2", weights="ema")
    assert score.value == pytest.approx(from_log_probs(log_probs(50, 4)), rel=1e-12)
    assert (score.name, score.unit, score.n, score.split, score.weights) == (
        *("class_score[lenet-mnist@a24bccc1]", "classes", 50, "test", "ema"),
    )
    assert score.protocol == (
        "50 samples, 4 classes of lenet-mnist@a24bccc1, no splits; "
        "error by 200 bootstrap resamples of the samples; gamma 2.2"
    )


def test_neither_order_nor_batches_matter() -> None:
    x = log_probs(50, 4)
    cut = banked(x[:0])
    for part in x[torch.randperm(50, generator=seeded(3))].split(7):
        cut.add(part)
    assert class_score(cut, generator=seeded()) == class_score(banked(x), generator=seeded())


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (banked(log_probs(9, 4), "lenet-mnist@a24bccc1"), "not features of lenet-mnist@a24bccc1: make the bank by"),
        (banked(torch.rand(9, 4)), "samples has rows whose probabilities do not add up to 1"),
        (banked(log_probs(1, 4)), "1 of samples; it takes 2 samples"),
    ],
)
def test_what_are_no_log_probabilities_is_refused(samples: Bank, message: str) -> None:
    with pytest.raises(DataError, match=message):
        class_score(samples, generator=seeded())
    with pytest.raises(ConfigError, match="resamples = 1"):
        class_score(banked(log_probs(9, 4)), generator=seeded(), resamples=1)
