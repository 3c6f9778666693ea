"""Endless batches and the Swiss roll; codes between -1 and 1."""

import math

import pytest
import torch

from common.data.centred import Centred
from common.data.points import Endless, digest, swiss_roll
from common.errors import DataError
from common.probes import quantise


def test_a_batch_depends_on_seed_and_step_only() -> None:
    batches = Endless(swiss_roll, 16, seed=3)
    fifth = batches(5).x
    batches(6)
    assert torch.equal(fifth, Endless(swiss_roll, 16, seed=3)(5).x)
    assert fifth.shape == (16, 2)


def test_neighbouring_seeds_and_steps_have_nothing_in_common() -> None:
    seen = [Endless(swiss_roll, 4, seed=seed)(step).x for seed in range(3) for step in range(3)]
    values = torch.cat(seen).flatten()
    assert len(values.unique()) == len(values)


@pytest.mark.parametrize(("size", "seed"), [(0, 0), (4, -1)])
def test_what_makes_no_batches(size: int, seed: int) -> None:
    with pytest.raises(DataError):
        Endless(swiss_roll, size, seed)


def test_swiss_roll_is_a_spiral_with_noise() -> None:
    x = 7.5 * swiss_roll(20_000, torch.Generator().manual_seed(0)).double()
    # The spiral closest to each point: 0.25 away at one deviation, in the direction across.
    t = torch.linspace(1.5 * math.pi, 4.5 * math.pi, 2000, dtype=torch.float64)
    off = torch.cdist(x, torch.stack([t * t.cos(), t * t.sin()], 1)).min(1).values
    assert float(off.square().mean()) == pytest.approx(0.25**2, rel=0.05)
    # Its angle is uniform: half of the points are within 3 pi of the origin, and r has the mean of t.
    r = x.norm(dim=1)
    assert float((r < 3 * math.pi).double().mean()) == pytest.approx(0.5, abs=0.02)
    assert float(r.mean()) == pytest.approx(3 * math.pi, abs=0.1)


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_centred_codes(levels: int) -> None:
    result = quantise(Centred(levels), levels=levels)
    assert result.passed, result
    x, ldj = Centred(levels).encode(torch.tensor([[0, levels - 1]], dtype=torch.uint8))
    assert x.tolist() == [[-1, 1]]
    assert ldj.tolist() == [0]


def test_a_digest_is_of_every_bit_and_of_nothing_else() -> None:
    x = swiss_roll(8, torch.Generator().manual_seed(0))
    assert digest(x) == digest(x.clone().requires_grad_()) == digest(x.T.contiguous().T)
    other = x.clone()
    other[3, 1] = torch.nextafter(other[3, 1], torch.tensor(1e9))
    assert digest(x) != digest(other)
