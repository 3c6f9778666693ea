"""Restored images beside what they should be, on noisy pictures."""

from functools import cache
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from benchmarks.conformance.table import Values, closed_form, implementation, load, slow
from common.evaluation.restoration import lpips_score, luma, psnr, psnr_score, ssim, ssim_score

PEAK = 255.0


@cache
def pictures(channels: int = 3, n: int = 6, side: int = 48) -> tuple[Tensor, Tensor]:
    """Smooth pictures with noise of different strength, and the same without."""
    draw = torch.Generator().manual_seed(20)
    waves = torch.randn(n, channels, 6, 6, generator=draw)
    clean = torch.nn.functional.interpolate(waves, size=(side, side), mode="bicubic")
    clean = (128 + 60 * clean).clamp(0, PEAK).round()
    noise = torch.randn(clean.shape, generator=draw) * torch.linspace(2, 40, n)[:, None, None, None]
    return (clean + noise).clamp(0, PEAK).round().to(torch.uint8), clean.to(torch.uint8)


PICTURES = "six smooth 3×48×48 pictures with noise of 2 to 40 levels (seed 20)"


def arrays() -> list[tuple[np.ndarray, np.ndarray]]:
    """Restored and reference, channels last."""
    return [(a.permute(1, 2, 0).numpy(), b.permute(1, 2, 0).numpy()) for a, b in zip(*pictures(), strict=True)]


def our_psnr() -> float:
    return psnr_score(*pictures(), split="test").value


def our_ssim() -> float:
    return ssim_score(*pictures(), split="test").value


# -- PSNR -------------------------------------------------------------------------------------------------------------


@closed_form("psnr", "a 3×16×16 picture, every pixel 5 levels too bright", "20 log₁₀(255 / 5)", relative=1e-12)
def _() -> Values:
    black = torch.zeros(1, 3, 16, 16)
    return float(psnr(black + 5, black, peak=PEAK)), 20 * np.log10(PEAK / 5)


@implementation("scikit-image", "psnr", PICTURES, "metrics.peak_signal_noise_ratio, mean over pictures", relative=1e-10)
def _() -> Values:
    measure = load("skimage.metrics").peak_signal_noise_ratio
    return our_psnr(), float(np.mean([measure(b, a, data_range=255) for a, b in arrays()]))


@implementation("torchmetrics", "psnr", PICTURES, "image.PeakSignalNoiseRatio(dim=(1, 2, 3))", relative=1e-6)
def _() -> Values:
    metric = load("torchmetrics.image").PeakSignalNoiseRatio(data_range=PEAK, dim=(1, 2, 3))
    metric.set_dtype(torch.float64)
    restored, reference = pictures()
    return our_psnr(), float(metric(restored.double(), reference.double()))


@implementation(
    "torchmetrics",
    "psnr",
    PICTURES,
    "image.PeakSignalNoiseRatio(), as it comes",
    relative=1e-6,
    differs="Its error is pooled over all pictures before the logarithm is taken; ours is the mean of each picture's.",
)
def _() -> Values:
    metric = load("torchmetrics.image").PeakSignalNoiseRatio(data_range=PEAK)
    restored, reference = pictures()
    return our_psnr(), float(metric(restored.double(), reference.double()))


@slow("psnr", f"{PICTURES}, luma, 4 pixels cut off", "picture by picture and pixel by pixel, BT.601", relative=1e-10)
def _() -> Values:
    ours = psnr_score(*pictures(), split="test", colour="y", crop=4).value
    found = []
    for a, b in arrays():
        squares = []
        for row in range(4, 44):
            for column in range(4, 44):
                apart = a[row, column].astype(float) - b[row, column].astype(float)
                squares.append((apart @ [65.481, 128.553, 24.966] / 255) ** 2)
        found.append(10 * np.log10(PEAK**2 / np.mean(squares)))
    return ours, float(np.mean(found))


# -- SSIM -------------------------------------------------------------------------------------------------------------


@closed_form(
    "ssim",
    "a picture of level 100 and one of level 130, 1×16×16",
    "(2·100·130 + C₁) / (100² + 130² + C₁), C₁ = (0.01·255)²",
    relative=1e-9,
)
def _() -> Values:
    grey, c_1 = torch.full((1, 1, 16, 16), 100.0), (0.01 * PEAK) ** 2
    return float(ssim(grey + 30, grey, peak=PEAK)), (2 * 100 * 130 + c_1) / (100**2 + 130**2 + c_1)


@implementation(
    "scikit-image",
    "ssim",
    PICTURES,
    "metrics.structural_similarity(gaussian_weights=True, sigma=1.5, use_sample_covariance=False)",
    relative=1e-9,
    note="The settings by which its documentation says that it matches Wang et al.",
)
def _() -> Values:
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return our_ssim(), skimage_ssim(**settings)


@implementation(
    "scikit-image",
    "ssim",
    PICTURES,
    "metrics.structural_similarity(), as it comes",
    relative=1e-6,
    differs="A 7×7 window of equal weights, and variances over n − 1, where Wang et al. have a Gaussian window and "
    "weighted means.",
)
def _() -> Values:
    return our_ssim(), skimage_ssim()


def skimage_ssim(**settings: object) -> float:
    measure = load("skimage.metrics").structural_similarity
    return float(np.mean([measure(b, a, data_range=255, channel_axis=2, **settings) for a, b in arrays()]))


@implementation(
    "torchmetrics",
    "ssim",
    PICTURES,
    "functional.image.structural_similarity_index_measure's map without its border of 5 pixels",
    relative=1e-9,
)
def _() -> Values:
    full = torchmetrics_ssim(return_full_image=True)[1]
    return our_ssim(), float(full[..., 5:-5, 5:-5].mean())


@implementation(
    "torchmetrics",
    "ssim",
    PICTURES,
    "functional.image.structural_similarity_index_measure, as it comes",
    relative=1e-6,
    differs="It continues pictures over their border by reflection, and counts windows there, too; Wang et al. count "
    "windows within the picture.",
)
def _() -> Values:
    return our_ssim(), float(torchmetrics_ssim())


def torchmetrics_ssim(**settings: bool) -> Any:
    measure = load("torchmetrics.functional.image").structural_similarity_index_measure
    restored, reference = pictures()
    return measure(restored.double(), reference.double(), data_range=PEAK, **settings)


@slow("ssim", "luma of the first picture (seed 20)", "window by window: Wang et al. 2004, eqs. 13 to 16", relative=1e-9)
def _() -> Values:
    x, y = (luma(codes[:1])[0, 0].numpy() for codes in pictures())
    offset = np.arange(11) - 5
    w = np.exp(-(offset[:, None] ** 2 + offset**2) / (2 * 1.5**2))
    w /= w.sum()
    c_1, c_2, found = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2, []
    for i in range(x.shape[0] - 10):
        for j in range(x.shape[1] - 10):
            a, b = x[i : i + 11, j : j + 11], y[i : i + 11, j : j + 11]
            m_a, m_b = (w * a).sum(), (w * b).sum()
            v_a, v_b = (w * (a - m_a) ** 2).sum(), (w * (b - m_b) ** 2).sum()
            cov = (w * (a - m_a) * (b - m_b)).sum()
            found.append((2 * m_a * m_b + c_1) * (2 * cov + c_2) / ((m_a**2 + m_b**2 + c_1) * (v_a + v_b + c_2)))
    restored, reference = pictures()
    return ssim_score(restored[:1], reference[:1], split="test", colour="y").value, float(np.mean(found))


# -- LPIPS ------------------------------------------------------------------------------------------------------------


@implementation(
    "lpips",
    "lpips",
    f"{PICTURES}, AlexNet with random weights (seed 0), the package's weights of the layers",
    "its network's features, normalised, weighted and averaged here (Zhang et al. 2018, eq. 1)",
    relative=1e-5,
    note="The package fetches AlexNet's trained weights; what is done with them is the same, and is what is checked.",
)
def _() -> Values:
    package = load("lpips")
    torch.manual_seed(0)
    distance = package.LPIPS(net="alex", pnet_rand=True, pretrained=True, verbose=False).eval()
    with mock.patch.object(package, "LPIPS", return_value=distance):
        ours = lpips_score(*pictures(), split="test", network="alex").value
    shift, scale = (torch.tensor(v).view(1, 3, 1, 1) for v in ((-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)))
    layers = [[], []]
    with torch.no_grad():
        for codes, found in zip(pictures(), layers, strict=True):
            found += [
                f / (f.square().sum(1, keepdim=True).sqrt() + 1e-10)
                for f in distance.net((codes / 127.5 - 1 - shift) / scale)
            ]
        weights = [layer.model[-1].weight for layer in distance.lins]
        parts = [
            ((a - b).square() * w.view(1, -1, 1, 1)).sum(1).mean((1, 2))
            for a, b, w in zip(*layers, weights, strict=True)
        ]
    return ours, float(torch.stack(parts).sum(0).mean())
