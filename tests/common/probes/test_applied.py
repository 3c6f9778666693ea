"""The probes applied to the preprocessings that `common.data` offers, which some project has yet to use."""

import pytest
import torch

from common.data import Compose, Dequantise, Logit, Scale, bits_per_dim
from common.data.preprocess import Preprocess
from common.probes import bijection, bits, quantise

DEQUANTISED = [(256, Dequantise(256)), (17, Dequantise(17)), (256, Compose(Dequantise(256), Logit(0.05)))]


@pytest.mark.parametrize(("levels", "preprocess"), DEQUANTISED, ids=repr)
def test_bits(levels: int, preprocess: Preprocess) -> None:
    result = bits(preprocess, levels=levels, bits_per_dim=bits_per_dim)
    assert result.passed, result


@pytest.mark.parametrize(("levels", "preprocess"), [(256, Scale(256)), *DEQUANTISED], ids=repr)
def test_quantise(levels: int, preprocess: Preprocess) -> None:
    result = quantise(preprocess, levels=levels)
    assert result.passed, result


def test_bijection() -> None:
    logit = Logit(0.05)
    x = torch.rand(2, 3, 2, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    result = bijection(logit.encode, logit.decode, x)
    assert result.passed, result
