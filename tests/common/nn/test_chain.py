"""A chain of invertible layers is one."""

import torch
from torch import nn

from common import probes
from common.nn.chain import Chain


class Bend(nn.Module):
    """y = a x + x^3, element by element; inverted by bisection."""

    def __init__(self, a):
        super().__init__()
        self.a = a

    def forward(self, x):
        return self.a * x + x**3, (self.a + 3 * x.square()).log().flatten(1).sum(1)

    def inverse(self, y):
        low, high = torch.full_like(y, -100), torch.full_like(y, 100)
        for _ in range(80):
            middle = (low + high) / 2
            below = self.a * middle + middle**3 < y
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return low


def test_log_determinants_add_up_and_the_inverse_goes_backwards():
    chain = Chain([Bend(0.5), Bend(2.0), Chain([Bend(1.0)])])
    x = 0.5 * torch.randn(3, 2, 3, 4, generator=torch.Generator().manual_seed(0)).double()
    assert probes.bijection(chain, chain.inverse, x, tolerance=1e-6).passed


def test_a_chain_of_nothing_is_the_identity():
    x = torch.randn(2, 3)
    y, ldj = Chain()(x)
    assert torch.equal(y, x)
    assert not ldj.any()
    assert torch.equal(Chain().inverse(x), x)
