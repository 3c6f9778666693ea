"""Instances for probes are far from where models begin, and repeatable."""

from dataclasses import dataclass

import torch
from torch import nn

from common.probes.instances import jittered, trained


class Zero(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(1000))
        self.register_buffer("var", torch.ones(1000))
        self.register_buffer("count", torch.zeros(1))


def test_every_number_is_drawn_anew_but_counters():
    model, again = jittered(Zero().train()), jittered(Zero())
    assert torch.equal(model.w, again.w)
    assert model.w.dtype == torch.float64
    assert 0.25 < model.w.std() < 0.35
    assert 0.5 <= model.var.min() < 0.6
    assert 1.9 < model.var.max() <= 2
    assert model.count == 0
    assert not model.training
    assert not torch.equal(jittered(Zero(), seed=1).w, model.w)


@dataclass
class Config:
    seed: int = 5


def test_training_has_a_folder_of_its_own_which_is_gone_afterwards():
    seen = []

    def train(config, run):
        assert run.directory.is_dir()
        assert run.seed == config.seed == 5
        seen.append(run.directory)
        return Zero()

    assert not trained(train, Config()).training
    assert not seen[0].exists()
