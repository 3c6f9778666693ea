"""Codes as numbers from -1 to 1."""

import pytest
import torch

from common import probes
from common.data import bits_per_dim
from common.data.centred import Centred
from common.errors import DataError


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_all_codes_survive_and_uniform_codes_cost_what_they_must(levels):
    assert probes.quantise(Centred(levels), levels=levels).passed
    assert probes.bits(Centred(levels), levels=levels, bits_per_dim=bits_per_dim).passed


def test_the_scale_is_symmetric_and_even():
    x, ldj = Centred(17).encode(torch.arange(17, dtype=torch.uint8)[:, None])
    torch.testing.assert_close(x[:, 0], torch.linspace(-1, 1, 17))
    assert torch.equal(ldj, torch.zeros(17))


def test_only_codes_are_encoded():
    with pytest.raises(DataError, match="codes"):
        Centred().encode(torch.zeros(1, 1))
