"""The residual network's shape, its weight normalisation, and what reaches what."""

import torch
from torch import nn

from common.nn.resnet import ResNet


def net(blocks=2):
    torch.manual_seed(0)
    return ResNet(3, 5, channels=4, blocks=blocks).double().eval()


def test_images_keep_their_height_and_width():
    assert net()(torch.randn(2, 3, 5, 7).double()).shape == (2, 5, 5, 7)
    assert net(0)(torch.randn(2, 3, 1, 4).double()).shape == (2, 5, 1, 4)


def test_weights_have_the_norm_of_their_scale():
    model = net()
    assert len(model.scales()) == 1 + 4 + 3 + 1
    weight, scale = model.blocks[0].layers[2].weight, model.blocks[0].layers[2].parametrizations.weight.original0
    torch.testing.assert_close(weight.flatten(1).norm(dim=1), scale.flatten())


def test_it_sees_as_far_as_its_convolutions_reach():
    model = net(1)  # 3 x 3, and twice 3 x 3: three pixels away
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.bias, 5.0)  # every ReLU lets through
    x = torch.randn(1, 3, 9, 9).double().requires_grad_()
    (gradient,) = torch.autograd.grad(model(x)[0, :, 4, 4].square().sum(), x)
    reached = gradient[0].abs().sum(0) > 0
    assert reached.any(0).tolist() == reached.any(1).tolist() == [False, *[True] * 7, False]


def test_every_block_has_a_way_of_its_own_to_the_last_layer():
    model, x = net(), torch.randn(2, 3, 5, 7).double()
    h = model.first(x)
    total = model.skips[0](h)
    for block, skip in zip(model.blocks, model.skips[1:], strict=True):
        added = h
        for layer in block.layers:
            added = layer(added)
        h = h + added
        total = total + skip(h)
    torch.testing.assert_close(model(x), model.last(total))
