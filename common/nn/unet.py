"""The U-Net that denoises images: Ho, Jain & Abbeel 2020 (DDPM), appendix B.

    x_BCHW -> stem -> levels down -> middle -> levels up -> head -> (B, channels_out, H, W)
                          \\__________ skip connections __________/

Every level has `blocks` residual blocks on the way down and `blocks + 1` on the way up, each of which takes what its
counterpart on the way down had (Ronneberger, Fischer & Brox 2015). All blocks are told the time.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.errors import ConfigError


def sinusoidal_embedding(t_B: Tensor, dims: int, longest: float = 10_000.0) -> Tensor:
    """sin(w_i t) and cos(w_i t) at frequencies w_i from 1 down to 1 / longest, evenly spaced in log: (B,) -> (B, dims).

    Vaswani et al. 2017, section 3.5. In float32 whatever surrounds it: bfloat16 has no room for t = 999 and 1000.

    Raises `ConfigError` unless `dims` is even and at least 4.
    """
    if dims < 4 or dims % 2:
        raise ConfigError(f"An embedding of {dims} values: it takes an even number, 4 or more.")
    half = dims // 2
    frequencies = torch.exp(torch.arange(half, device=t_B.device) * (-math.log(longest) / (half - 1)))
    angles = t_B.to(torch.float32)[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], 1)


class ResidualBlock(nn.Module):
    """x + conv(dropout(act(norm(conv(act(norm(x))) + time)))), act being swish (SiLU): (B, C, H, W) -> (B, C', H, W).

    Its last convolution begins at zero: an untrained block hands x through (by a 1x1 convolution where C' is not C).
    """

    def __init__(self, channels_in: int, channels_out: int, time_dims: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = _Norm(channels_in)
        self.conv1 = _conv(channels_in, channels_out, 3)
        self.time = nn.Linear(time_dims, channels_out)
        self.norm2 = _Norm(channels_out)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = _zero(_conv(channels_out, channels_out, 3))
        self.skip = nn.Identity() if channels_in == channels_out else _conv(channels_in, channels_out, 1)
        _glorot(self.time)

    def forward(self, x_BCHW: Tensor, time_BE: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x_BCHW)))
        h = h + self.time(time_BE)[:, :, None, None]
        h = self.conv2(self.dropout(F.silu(self.norm2(h))))
        return self.skip(x_BCHW) + h  # type: ignore[no-any-return]


class SelfAttention(nn.Module):
    """x + project(attention over all pixels of norm(x)), one head; (B, C, H, W) -> the same. Begins as the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = _Norm(channels)
        self.qkv = _conv(channels, 3 * channels, 1, gain=math.sqrt(2))  # as three convolutions would begin
        self.project = _zero(_conv(channels, channels, 1))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        batch, channels, height, width = x_BCHW.shape
        # Rows are pixels. Without a copy where the memory is channels-last, which has them as rows already.
        qkv_BNC = self.qkv(self.norm(x_BCHW)).permute(0, 2, 3, 1).reshape(batch, 1, height * width, 3 * channels)
        if qkv_BNC.device.type == "cpu":  # where the float32 kernel is the faster one, under autocast too
            with torch.autocast("cpu", enabled=False):
                qkv_BNC = qkv_BNC.to(torch.promote_types(qkv_BNC.dtype, torch.float32))
                mixed = F.scaled_dot_product_attention(*qkv_BNC.chunk(3, dim=-1))
        else:
            mixed = F.scaled_dot_product_attention(*qkv_BNC.chunk(3, dim=-1))
        return x_BCHW + self.project(mixed.view(batch, height, width, channels).permute(0, 3, 1, 2))  # type: ignore[no-any-return]


class UNet(nn.Module):
    """(x (B, channels_in, H, W), t (B,)) -> (B, channels_out, H, W); t is the number of the diffusion step.

    H and W must be divisible by patch * 2 ** (levels - 1). Untrained, it gives zeros: its last convolution begins so.

    Args:
        base: channels of the first level.
        multipliers: of `base`, the channels of each level; every level halves height and width.
        blocks: residual blocks of a level on the way down.
        attention_at: levels, 0 being the finest, whose blocks are each followed by self-attention; the middle
            always has it. DDPM's CIFAR10 model, (1, 2, 2, 2) on 32x32, has it at 16x16: (1,).
        dropout: probability, in every residual block.
        patch: the network works on squares of patch x patch pixels as if they were one pixel of patch**2 times
            as many channels. patch = 2 costs a quarter; what it loses is the finest level.

    Raises `ConfigError` for sizes that cannot be.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        base: int = 128,
        multipliers: tuple[int, ...] = (1, 2, 2, 2),
        blocks: int = 2,
        attention_at: tuple[int, ...] = (1,),
        dropout: float = 0.1,
        patch: int = 1,
    ) -> None:
        super().__init__()
        if base < 4 or base % 4 or not multipliers or min(multipliers) < 1 or blocks < 1 or patch < 1:
            raise ConfigError(
                f"A U-Net of base {base}, multipliers {tuple(multipliers)}, blocks {blocks}, patch {patch}: base must "
                "be a multiple of 4, there must be a level, and nothing may be below 1."
            )
        if not all(0 <= level < len(multipliers) for level in attention_at):
            raise ConfigError(f"attention_at = {tuple(attention_at)}: the levels are 0 to {len(multipliers) - 1}.")
        self.base, self.patch, self.divisor = base, patch, patch * 2 ** (len(multipliers) - 1)
        time_dims = 4 * base
        self.time = nn.Sequential(nn.Linear(base, time_dims), nn.SiLU(), nn.Linear(time_dims, time_dims), nn.SiLU())
        for layer in self.time:
            if isinstance(layer, nn.Linear):
                _glorot(layer)

        def block(channels_in: int, channels_out: int, attend: bool) -> _Block:
            return _Block(channels_in, channels_out, time_dims, dropout, attend)

        sizes = [base * multiplier for multiplier in multipliers]
        self.stem = _conv(channels_in * patch**2, base, 3)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        channels, skips = base, [base]  # channels of everything that the way up takes
        for level, size in enumerate(sizes):
            for _ in range(blocks):
                self.down.append(block(channels, size, level in attention_at))
                channels = size
                skips.append(channels)
            if level < len(sizes) - 1:
                self.down.append(_Downsample(channels))
                skips.append(channels)
        self.middle = nn.ModuleList([block(channels, channels, True), block(channels, channels, False)])
        for level, size in reversed(list(enumerate(sizes))):
            for _ in range(blocks + 1):
                self.up.append(block(channels + skips.pop(), size, level in attention_at))
                channels = size
            if level > 0:
                self.up.append(_Upsample(channels))
        self.norm = _Norm(channels)
        self.head = _zero(_conv(channels, channels_out * patch**2, 3))

    def forward(self, x_BCHW: Tensor, t_B: Tensor) -> Tensor:
        if x_BCHW.shape[-1] % self.divisor or x_BCHW.shape[-2] % self.divisor:
            raise ConfigError(
                f"Images of {x_BCHW.shape[-2]}x{x_BCHW.shape[-1]}: this U-Net takes multiples of {self.divisor}. "
                "Give it fewer levels (multipliers), or another patch."
            )
        time = self.time(sinusoidal_embedding(t_B, self.base).to(x_BCHW.dtype))
        h = self.stem(F.pixel_unshuffle(x_BCHW, self.patch))
        skips = [h]
        for module in self.down:
            h = module(h, time)
            skips.append(h)
        for module in self.middle:
            h = module(h, time)
        for module in self.up:
            h = module(torch.cat([h, skips.pop()], 1) if isinstance(module, _Block) else h, time)
        return F.pixel_shuffle(self.head(F.silu(self.norm(h))), self.patch)


class _Block(nn.Module):
    """A residual block, followed by self-attention or not."""

    def __init__(self, channels_in: int, channels_out: int, time_dims: int, dropout: float, attend: bool) -> None:
        super().__init__()
        self.residual = ResidualBlock(channels_in, channels_out, time_dims, dropout)
        self.attention = SelfAttention(channels_out) if attend else nn.Identity()

    def forward(self, x_BCHW: Tensor, time_BE: Tensor) -> Tensor:
        return self.attention(self.residual(x_BCHW, time_BE))  # type: ignore[no-any-return]


class _Downsample(nn.Module):
    """Half the height and width, by a convolution of stride 2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = _conv(channels, channels, 3, stride=2)

    def forward(self, x_BCHW: Tensor, time_BE: Tensor) -> Tensor:
        return self.conv(x_BCHW)  # type: ignore[no-any-return]


class _Upsample(nn.Module):
    """Twice the height and width: each pixel four times, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = _conv(channels, channels, 3)

    def forward(self, x_BCHW: Tensor, time_BE: Tensor) -> Tensor:
        return self.conv(F.interpolate(x_BCHW, scale_factor=2.0, mode="nearest"))  # type: ignore[no-any-return]


class _Norm(nn.GroupNorm):
    """Group normalisation, in 32 groups as in the authors' code; fewer where these had less than four channels.

    In float32 under autocast too, as it always is on a GPU: more exact, and on a CPU several times faster.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(math.gcd(32, channels // 4), channels)

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype not in (torch.bfloat16, torch.float16):
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float()).to(x.dtype)


def _conv(channels_in: int, channels_out: int, kernel: int, stride: int = 1, gain: float = 1.0) -> nn.Conv2d:
    conv = nn.Conv2d(channels_in, channels_out, kernel, stride, padding=kernel // 2)
    _glorot(conv, gain)
    return conv


def _glorot(layer: nn.Conv2d | nn.Linear, gain: float = 1.0) -> None:
    """The initialisation of the authors' code: Glorot & Bengio's uniform weights, no bias."""
    nn.init.xavier_uniform_(layer.weight, gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def _zero(conv: nn.Conv2d) -> nn.Conv2d:
    nn.init.zeros_(conv.weight)
    return conv
