"""The moving average of weights."""

import copy
from math import comb, prod

import pytest
import torch
from tiny_run import tiny
from torch import nn

from common.errors import ConfigError
from common.training import EMA, fit


def share_of_initial_weight(updates: int, *arguments, **options) -> float:
    """Average a weight that was 1 and is 0 from then on: what is left is the initial weight's share."""
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.ones_(model.weight)
    ema = EMA(model, *arguments, **options)
    nn.init.zeros_(model.weight)
    for _ in range(updates):
        ema.update()
    return ema.model.weight.item()


@pytest.mark.parametrize("updates", [1, 2, 10, 500])
def test_warm_up_forgets_the_initial_weights(updates):
    # prod (1 + t) / (10 + t) over t < n is n! 9! / (n + 9)!
    assert share_of_initial_weight(updates, 0.9999) == pytest.approx(1 / comb(updates + 9, 9), rel=1e-6)


def test_warm_up_ends_at_the_decay_asked_for():
    # (1 + t) / (10 + t) reaches 0.5 at t = 8
    expected = prod((1 + t) / (10 + t) for t in range(8)) * 0.5**4
    assert share_of_initial_weight(12, 0.5) == pytest.approx(expected, rel=1e-6)


def test_without_warm_up_and_by_half_life():
    assert share_of_initial_weight(1000, 0.999, warmup=False) == pytest.approx(0.999**1000, rel=1e-6)
    assert share_of_initial_weight(300, halflife_steps=100, warmup=False) == pytest.approx(1 / 8, rel=1e-6)


class Odd(nn.Module):
    """Every kind of tensor a module may hold, a tied weight among them."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.first = nn.Linear(3, 3)
        self.tied = nn.Linear(3, 3)
        self.tied.weight = self.first.weight
        self.register_buffer("codes", torch.arange(3))
        self.register_buffer("seen", torch.tensor(False), persistent=False)
        self.register_buffer("late", None)

    def forward(self, x):
        self.codes = self.codes + 1  # a new tensor, as some modules make
        self.seen.fill_(True)
        if self.late is None:
            self.late = torch.ones(2)
        return self.tied(self.first(self.norm(x)))


def test_buffers_are_copied():
    model = Odd()
    ema = EMA(model, 0.9)
    for _ in range(3):
        model(torch.randn(8, 3) + 5)
        ema.update()
    for name, buffer in model.named_buffers():
        own = dict(ema.model.named_buffers())[name]
        assert own.dtype == buffer.dtype
        assert torch.equal(own, buffer)
        assert own.data_ptr() != buffer.data_ptr()
    assert ema.model.codes.tolist() == [3, 4, 5]
    assert ema.model.tied.weight is ema.model.first.weight


def test_swapping_in_restores_exactly():
    model = Odd()
    ema = EMA(model, 0.9)
    adam = torch.optim.Adam(model.parameters(), lr=0.1)
    for _ in range(4):
        adam.zero_grad()
        model(torch.randn(8, 3)).square().sum().backward()
        adam.step()
        ema.update()
    kept = copy.deepcopy(model.state_dict())
    with pytest.raises(ZeroDivisionError), ema.averaged(model) as averaged:  # noqa: PT012
        assert averaged is model
        for name, value in ema.model.state_dict().items():
            assert torch.equal(model.state_dict()[name], value)
        assert not torch.equal(model.first.weight, kept["first.weight"])
        model.norm.train()(torch.randn(8, 3))  # even an evaluation that forgets eval()
        1 / 0  # noqa: B018
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())


def test_the_average_is_independent_and_takes_no_gradient():
    model = nn.Linear(2, 2)
    ema = EMA(model, 0.9)
    assert not any(p.requires_grad for p in ema.model.parameters())
    assert all(p.requires_grad for p in model.parameters())
    kept = ema.model.weight.clone()
    nn.init.zeros_(model.weight)
    assert torch.equal(ema.model.weight, kept)


def test_a_run_takes_every_update_into_its_average(new_run):
    state, batches, step = tiny()
    state.ema, by_hand = EMA(state.model, 0.5), EMA(state.model, 0.5)

    def step_and_average(state, batch):
        metrics = step(state, batch)
        by_hand.update()
        return metrics

    fit(state, batches, step_and_average, steps=7, run=new_run())
    assert state.ema.updates == 7
    assert torch.equal(state.ema.model.weight, by_hand.model.weight)


def test_state_continues_the_warm_up():
    model = nn.Linear(2, 2)
    one, other = EMA(model, 0.99), EMA(model, 0.99)
    one.update()
    nn.init.zeros_(model.weight)
    one.update()
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    one.update(), other.update()
    assert torch.equal(one.model.weight, other.model.weight)
    assert repr(other) == "EMA(decay=0.99, warmup=True, updates=3)"


@pytest.mark.parametrize("options", [{}, {"decay": 0.9, "halflife_steps": 5}, {"decay": 1.0}, {"halflife_steps": 0}])
def test_bad_arguments(options):
    with pytest.raises(ConfigError):
        EMA(nn.Linear(1, 1), **options)
