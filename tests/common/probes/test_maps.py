"""Bijections and codecs, right ones and those known to have gone wrong elsewhere."""

import math

import pytest
import torch
from torch import Tensor, nn

from common.errors import ConfigError
from common.probes import bijection, quantise
from common.probes.result import ProbeResult

# Channels 4, height 3, width 5: a height for a width, or a forgotten one, shows.
SHAPE = (4, 3, 5)


def images(seed: int = 0, n: int = 2) -> Tensor:
    return torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def assert_caught(result: ProbeResult, words: str) -> None:
    assert not result.passed, result
    assert words in result.detail, result


class Glow(nn.Module):
    """ActNorm, 1x1 convolution, affine coupling: one step of Kingma & Dhariwal 2018, with switches to spoil it."""

    def __init__(self, seed: int = 0, wrong: str = "") -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.wrong = wrong
        self.log_scale = torch.randn(4, generator=generator, dtype=torch.float64)[:, None, None] / 2
        self.mixing = torch.randn(4, 4, generator=generator, dtype=torch.float64) + torch.eye(4)
        self.net = torch.randn(4, 2, 3, 3, generator=generator, dtype=torch.float64) / 3

    def coupling(self, first: Tensor) -> tuple[Tensor, Tensor]:
        shift, raw = nn.functional.conv2d(first, self.net, padding=1).tanh().chunk(2, 1)
        return shift, raw + 0.1

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        height, width = x.shape[-2:]
        pixels = {"no H*W": 1, "H*H": height * height}.get(self.wrong, height * width)
        if self.wrong == "shift in place":
            x += 1.0
        if self.wrong == "batch statistics":
            x = x - x.mean(0)
        x = x * self.log_scale.exp()
        ldj = self.log_scale.sum() * pixels * x.new_ones(len(x))
        x = torch.einsum("ij,bjhw->bihw", self.mixing, x)
        log_det = torch.linalg.slogdet(self.mixing).logabsdet
        ldj = ldj + log_det * height * width * (-1 if self.wrong == "sign" else 1)
        if self.wrong == "det, not log":
            ldj = ldj + (log_det.exp() - log_det) * height * width
        first, second = x.chunk(2, 1)
        shift, log_s = self.coupling(first)
        x = torch.cat([first, second * log_s.exp() + shift], 1)
        if self.wrong == "mean":
            return x, ldj + log_s.flatten(1).mean(1)
        if self.wrong == "batch sum":
            return x, ldj + log_s.sum()
        if self.wrong == "shape":
            return x, ldj.sum()
        if self.wrong == "drops":
            return x[:, :3], ldj
        if self.wrong == "detached":
            return x.detach(), ldj
        return x, ldj + log_s.flatten(1).sum(1)

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        first, second = z.chunk(2, 1)
        shift, log_s = self.coupling(first)
        if self.wrong == "inverse in place":
            second -= shift
        else:
            second = second - shift
        second = second * log_s.exp() if self.wrong == "inverse" else second / log_s.exp()
        x = torch.cat([first, second], 1)
        x = torch.einsum("ij,bjhw->bihw", torch.linalg.inv(self.mixing), x) / self.log_scale.exp()
        if self.wrong == "shift in place":
            x = x - 1
        if self.wrong == "wrong ldj back":
            return x, log_s.flatten(1).sum(1)
        return x, -self.forward(x.clone())[1]  # shares every mistake of forward


def check(flow: Glow, seed: int = 0) -> ProbeResult:
    return bijection(flow, flow.inverse, images(seed))


def test_bijection_of_a_right_flow() -> None:
    for seed in range(10):
        flow = Glow(seed)
        result = bijection(flow, flow.inverse, images(seed), z=images(100 + seed))
        assert result.passed, result
        assert bijection(flow, lambda z, flow=flow: flow.inverse(z)[0], images(seed)).passed


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("no H*W", "the Jacobian's is"),
        ("H*H", "the Jacobian's is"),
        ("sign", "the Jacobian's is"),
        ("det, not log", "the Jacobian's is"),
        ("mean", "the Jacobian's is"),
        ("batch sum", "the Jacobian's is"),
        ("shape", "one value per example"),
        ("drops", "loses or adds"),
        ("detached", "autograd"),
        ("inverse", "inverse(forward(x)) is not x"),
        ("wrong ldj back", "not minus forward's"),
        ("shift in place", "forward modifies"),
        ("inverse in place", "inverse modifies"),
        ("batch statistics", "another example"),
    ],
)
def test_bijection_finds_wrong_flows(wrong: str, words: str) -> None:
    assert_caught(check(Glow(wrong=wrong)), words)


def test_bijection_finds_an_inverse_that_is_right_on_one_side_only() -> None:
    """exp is inverted by log|.|, until z is negative."""
    result = bijection(lambda x: (x.exp(), x.flatten(1).sum(1)), lambda z: z.abs().log(), images(), z=images(1))
    assert_caught(result, "forward(inverse(z)) is not z")


def test_bijection_finds_a_singular_map() -> None:
    result = bijection(lambda x: (0 * x, x.new_zeros(len(x))), lambda z: z, images())
    assert_caught(result, "the Jacobian's is -inf")


def test_bijection_refuses_what_hides_mistakes() -> None:
    flow = Glow()
    with pytest.raises(ConfigError, match="float64"):
        bijection(flow, flow.inverse, images().float())
    with pytest.raises(ConfigError, match="H != W"):
        bijection(flow, flow.inverse, images()[..., :3])
    with pytest.raises(ConfigError, match="H != W"):
        bijection(flow, flow.inverse, images()[:, :1])
    with pytest.raises(ConfigError, match="two or more"):
        bijection(flow, flow.inverse, images()[:1])


class Codec:
    """u8 -> [0, 1] or [-1, 1], discrete or with noise; each way of decoding that has been seen."""

    def __init__(self, levels: int = 256, noise: bool = False, wrong: str = "") -> None:
        self.levels, self.noise, self.wrong = levels, noise, wrong

    def encode(self, u8: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        top = self.levels - 1
        ldj = torch.zeros(len(u8))
        if self.wrong == "in place":
            u8.clamp_(0, top - 1)
        if self.wrong == "tail lost":
            u8 = u8.clamp(1, top)
        if self.wrong == "swapped":
            u8 = u8.transpose(2, 3).reshape(u8.shape)
        if self.noise:
            u = torch.rand(u8.shape, generator=generator, dtype=torch.float64)
            if self.wrong == "wide noise":
                u = 1.01 * u
            return (u8 + u) / self.levels, ldj + len(u8[0].flatten()) * -math.log(self.levels)
        x = u8.float() / top
        return (2 * x - 1 if "+1" in self.wrong else x), ldj

    def decode(self, x: Tensor) -> Tensor:
        top = self.levels - 1
        match self.wrong:
            case "((x+1)*127.5).to(uint8)":
                return ((x + 1) * 127.5).clamp(0, 255).to(torch.uint8)
            case "floor(255 x)":
                return (x * top + 1e-3).floor().clamp(0, top).to(torch.uint8)
            case "floor(256 x)":
                return (x * 256).floor().clamp(0, top).to(torch.uint8)
            case "no clamp":
                return (x * top).round().to(torch.int64).remainder(256).to(torch.uint8)
            case "float":
                return (x * top).round()
            case "scales in place":
                return x.mul_(top).round().clamp(0, top).to(torch.uint8)
        if self.noise:
            return (x * self.levels).floor().clamp(0, top).to(torch.uint8)
        return (x * top).round().clamp(0, top).to(torch.uint8)


@pytest.mark.parametrize("noise", [False, True])
@pytest.mark.parametrize("levels", [2, 17, 256])
def test_quantise_of_right_codecs(levels: int, noise: bool) -> None:
    for seed in range(5):
        result = quantise(Codec(levels, noise), levels=levels, seed=seed)
        assert result.passed, result
        assert result.numbers["lost"] == 0


@pytest.mark.parametrize(
    ("codec", "words"),
    [
        (Codec(wrong="((x+1)*127.5).to(uint8)"), "codes do not survive"),
        (Codec(wrong="floor(255 x)"), "nearest code"),
        (Codec(wrong="floor(256 x)"), "nearest code"),
        (Codec(wrong="no clamp"), "beyond the range"),
        (Codec(wrong="float"), "torch.float32"),
        (Codec(wrong="scales in place"), "decode modifies"),
        (Codec(wrong="in place"), "encode modifies"),
        (Codec(wrong="tail lost"), "1 of 256 codes do not survive"),
        (Codec(wrong="swapped"), "codes do not survive"),
        (Codec(noise=True, wrong="wide noise"), "codes do not survive"),
        (Codec(levels=255), "codes do not survive"),
    ],
)
def test_quantise_finds_wrong_codecs(codec: Codec, words: str) -> None:
    assert_caught(quantise(codec), words)


def test_quantise_counts_the_codes_that_the_usual_cast_loses() -> None:
    """((x + 1) * 127.5).to(uint8) after 2 u / 255 - 1 in float32 truncates 63 of the 256 codes."""
    result = quantise(Codec(wrong="((x+1)*127.5).to(uint8)"))
    u = torch.arange(256)
    lost = ((((2 * (u.float() / 255) - 1) + 1) * 127.5).to(torch.uint8) != u).sum()
    assert result.numbers["lost"] == lost > 0


def test_quantise_refuses_other_levels() -> None:
    with pytest.raises(ConfigError, match="2 to 256"):
        quantise(Codec(), levels=1000)
