"""The U-Net: shapes, what it may and may not depend on, how it begins."""

import math

import pytest
import torch
from torch import nn

from common.errors import ConfigError
from common.nn import UNet
from common.nn.unet import ResidualBlock, SelfAttention, sinusoidal_embedding


def shaken(model: nn.Module) -> nn.Module:
    """In float64 and with no weight at zero, so that everything has an effect."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    return model.double().eval()


@pytest.mark.parametrize(
    ("size", "settings"),
    [
        ((1, 28, 28), {"base": 8, "multipliers": (1, 2, 2), "attention_at": (2,)}),
        ((1, 28, 28), {"base": 8, "multipliers": (1, 2), "attention_at": (1,), "patch": 2}),
        ((1, 8, 8), {"base": 8, "multipliers": (1, 2), "attention_at": ()}),
        ((3, 8, 16), {"base": 12, "multipliers": (1,), "attention_at": (0,), "blocks": 1}),
    ],
)
def test_output_has_the_images_shape_and_begins_at_zero(size, settings):
    model = UNet(size[0], size[0] + 1, **settings)
    out = model(torch.randn(2, *size), torch.tensor([1, 1000]))
    assert out.shape == (2, size[0] + 1, *size[1:])
    assert torch.equal(out, torch.zeros_like(out))  # the last convolution begins at zero


def test_the_papers_cifar10_model_has_its_35_7_million_parameters():
    """Appendix B: "Our CIFAR10 model has 35.7 million parameters"."""
    with torch.device("meta"):
        model = UNet(3, 3, base=128, multipliers=(1, 2, 2, 2), blocks=2, attention_at=(1,), dropout=0.1)
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 1) == 35.7


def test_examples_do_not_mix_and_every_pixel_and_the_time_matter():
    model = shaken(UNet(2, 1, base=8, multipliers=(1, 2), blocks=1, attention_at=(1,), patch=2))
    x = torch.randn(3, 2, 8, 4, dtype=torch.float64, requires_grad=True)
    t = torch.tensor([3, 500, 500])
    out = model(x, t)
    (gradient,) = torch.autograd.grad(out[1].square().sum(), x)
    assert (gradient[1] != 0).all()
    assert (gradient[[0, 2]] == 0).all()
    moved = model(x, torch.tensor([3, 501, 500]))
    assert (moved[1] != out[1]).all()
    torch.testing.assert_close(moved[[0, 2]], out[[0, 2]], rtol=0, atol=1e-12)


def test_channels_last_changes_nothing_but_speed():
    model = shaken(UNet(1, 1, base=8, multipliers=(1, 2), attention_at=(0, 1)))
    x, t = torch.randn(2, 1, 8, 8, dtype=torch.float64), torch.tensor([7, 70])
    plain = model(x, t)
    last = model.to(memory_format=torch.channels_last)(x.contiguous(memory_format=torch.channels_last), t)
    torch.testing.assert_close(last, plain, rtol=1e-10, atol=1e-10)


def test_bfloat16_autocast_is_the_same_network_rounded():
    model = shaken(UNet(1, 1, base=8, multipliers=(1, 2), attention_at=(1,))).float()
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([7, 70])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = model(x, t)
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), model(x, t), rtol=0.05, atol=0.05)


def test_attention_is_softmax_attention_over_pixels():
    attention = shaken(SelfAttention(8))
    x = torch.randn(2, 8, 3, 4, dtype=torch.float64)
    q, k, v = (each.flatten(2) for each in attention.qkv(attention.norm(x)).chunk(3, 1))  # (B, C, N)
    weights = torch.softmax(torch.einsum("bci,bcj->bij", q, k) / math.sqrt(8), -1)
    mixed = torch.einsum("bij,bcj->bci", weights, v).view_as(x)
    torch.testing.assert_close(attention(x), x + attention.project(mixed))


def test_blocks_begin_as_the_identity():
    x = torch.randn(2, 8, 4, 4)
    assert torch.equal(ResidualBlock(8, 8, 16, 0.0)(x, torch.randn(2, 16)), x)
    assert torch.equal(SelfAttention(8)(x), x)


def test_dropout_is_for_training_only():
    model = shaken(UNet(1, 1, base=8, multipliers=(1,), attention_at=(), dropout=0.5))
    x, t = torch.randn(1, 1, 4, 4, dtype=torch.float64), torch.tensor([5])
    assert torch.equal(model(x, t), model(x, t))
    model.train()
    assert not torch.equal(model(x, t), model(x, t))


def test_embedding_tells_all_steps_apart_in_bfloat16_too():
    t = torch.arange(1, 1001)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        embedding = sinusoidal_embedding(t, 16)
    assert embedding.dtype == torch.float32
    assert (torch.cdist(embedding.double(), embedding.double()) + 9 * torch.eye(1000)).min() > 0.05
    torch.testing.assert_close(embedding[:, 0], t.float().sin(), atol=1e-4, rtol=0)  # frequency 1
    torch.testing.assert_close(embedding[:, 15], (t / 10_000).cos(), atol=1e-6, rtol=0)  # frequency 1 / 10,000


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"base": 6}, "multiple of 4"),
        ({"multipliers": ()}, "level"),
        ({"blocks": 0}, "below 1"),
        ({"attention_at": (4,)}, "0 to 3"),
    ],
)
def test_sizes_that_cannot_be_are_refused(settings, says):
    with pytest.raises(ConfigError, match=says):
        UNet(1, 1, **{"base": 8, **settings})


def test_images_that_do_not_halve_are_refused():
    with pytest.raises(ConfigError, match="multiples of 8"):
        UNet(1, 1, base=8)(torch.zeros(1, 1, 28, 28), torch.tensor([1]))
