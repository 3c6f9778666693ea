"""A residual convolutional network with weight and batch normalisation: from images to images of the same size."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm


def conv(channels_in: int, channels_out: int, size: int) -> nn.Module:
    """A convolution with weight normalisation (Salimans & Kingma 2016) that keeps height and width; `size` is odd."""
    layer: nn.Module = weight_norm(nn.Conv2d(channels_in, channels_out, size, padding=size // 2))
    return layer


class Block(nn.Module):
    """Pre-activation residual block (He et al. 2016): batch normalisation, ReLU, 3 x 3 convolution, twice."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(2):
            layers += [nn.BatchNorm2d(channels), nn.ReLU(), conv(channels, channels, 3)]
        self.layers = nn.Sequential(*layers)

    def forward(self, h: Tensor) -> Tensor:
        """(B, channels, H, W) -> the same shape."""
        added: Tensor = self.layers(h)
        return h + added


class ResNet(nn.Module):
    """`blocks` residual blocks of `channels` feature maps; every block, and what enters the first, also reaches the
    last layer by a 1 x 1 convolution of its own (skip connections)."""

    def __init__(self, channels_in: int, channels_out: int, *, channels: int, blocks: int) -> None:
        super().__init__()
        self.first = conv(channels_in, channels, 3)
        self.blocks = nn.ModuleList(Block(channels) for _ in range(blocks))
        self.skips = nn.ModuleList(conv(channels, channels, 1) for _ in range(blocks + 1))
        self.last = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(), conv(channels, channels_out, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels_in, H, W) -> (B, channels_out, H, W)."""
        h = self.first(x)
        total = self.skips[0](h)
        for block, skip in zip(self.blocks, list(self.skips)[1:], strict=True):
            h = block(h)
            total = total + skip(h)
        result: Tensor = self.last(total)
        return result

    def scales(self) -> list[nn.Parameter]:
        """The scale parameters g of all weight normalisations."""
        return [parameter for name, parameter in self.named_parameters() if name.endswith("original0")]
