"""Values by batch and samples by chunk, in one process; tests/common/training/test_distributed.py has several."""

import pytest
import torch

from common.errors import ConfigError
from common.evaluation.features import raw_pixels
from common.evaluation.shards import Dealt, by_batch, drawn

X = torch.randn(11, 3, generator=torch.Generator().manual_seed(0))


def noisy(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return x + torch.randn(x.shape, generator=generator)


def sample(n: int, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(n, 2, generator=generator)


def test_values_are_those_of_the_examples_in_their_order():
    weights = torch.arange(11.0)
    found = by_batch(lambda x, w: x.square().sum(1) * w, X, weights, batch_size=4)
    assert torch.equal(found, X.square().sum(1) * weights)


def test_chance_is_the_batchs_own():
    """It depends on the seed and on the batch's number, and on no batch before it."""
    found = by_batch(noisy, X, batch_size=4, seed=5)
    other = X.clone()
    other[:4] = 0
    assert torch.equal(by_batch(noisy, other, batch_size=4, seed=5)[4:], found[4:])
    assert torch.equal(by_batch(noisy, X[:8], batch_size=4, seed=5), found[:8])
    noise = found - X
    assert not torch.equal(noise[:4], noise[4:8])
    assert not torch.equal(by_batch(noisy, X, batch_size=4, seed=6), found)
    assert noise.std() == pytest.approx(1, abs=0.5)


def test_no_generator_without_a_seed_and_no_gradient():
    layer = torch.nn.Linear(3, 1)
    assert not by_batch(layer, X, batch_size=4).requires_grad


def test_samples_are_the_same_whatever_their_number():
    found = drawn(sample, 10, chunk=3, seed=1)
    assert found.shape == (10, 2)
    assert torch.equal(drawn(sample, 6, chunk=3, seed=1), found[:6])
    assert len(found.unique(dim=0)) == 10
    assert not torch.equal(drawn(sample, 10, chunk=3, seed=2), found)


def test_features_that_are_dealt_out_are_the_same_under_the_same_name(monkeypatch):
    codes, pixels, sizes = torch.arange(11 * 4, dtype=torch.uint8).view(11, 1, 2, 2), raw_pixels((1, 2, 2)), []
    monkeypatch.setattr(type(pixels), "__call__", spied(type(pixels).__call__, sizes))
    dealt = Dealt(pixels, batch_size=4)
    assert torch.equal(dealt(codes), codes.flatten(1).double() / 255)
    assert sizes == [4, 4, 3]
    assert (dealt.name, dealt.dims) == (pixels.name, pixels.dims)


def spied(call, sizes):
    return lambda self, codes: (sizes.append(len(codes)), call(self, codes))[1]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: by_batch(lambda x: x, X[:0], batch_size=2), "no examples"),
        (lambda: by_batch(lambda x: x, batch_size=2), "no examples"),
        (lambda: by_batch(lambda x, y: x, X, X[:5], batch_size=2), "11, 5 examples"),
        (lambda: by_batch(lambda x: x, X, batch_size=0), "batch_size = 0"),
        (lambda: by_batch(lambda x: x.mean(), X, batch_size=4), "a row for each"),
        (lambda: by_batch(lambda x: x[:1], X, batch_size=4), r"4 examples gave a tensor of shape \(1, 3\)"),
        (lambda: drawn(sample, 0, chunk=2, seed=0), "n = 0"),
        (lambda: drawn(sample, 3, chunk=0, seed=0), "chunk = 0"),
    ],
)
def test_what_cannot_be_is_refused(call, says):
    with pytest.raises(ConfigError, match=says):
        call()
