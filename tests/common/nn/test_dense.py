"""Dense networks, layer by layer."""

import torch
from torch import nn

from common.nn.dense import dense


def test_layers_alternate_with_the_activation_but_for_the_last():
    net = dense((3, 7, 5, 2), nn.Tanh)
    assert [type(layer).__name__ for layer in net] == ["Linear", "Tanh", "Linear", "Tanh", "Linear"]
    assert [(layer.in_features, layer.out_features) for layer in net[::2]] == [(3, 7), (7, 5), (5, 2)]


def test_zero_makes_the_output_zero_and_leaves_it_trainable():
    net, x = dense((3, 7, 2), nn.ReLU, zero=True), torch.randn(4, 3)
    assert not net(x).any()
    net(x).sum().backward()
    assert net[2].weight.grad.any()
    assert net[0].weight.any()
