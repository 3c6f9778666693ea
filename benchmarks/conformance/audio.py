"""Restored sounds beside what they should be."""

import math

import torch
from torch import Tensor

from benchmarks.conformance.table import Values, closed_form, implementation, load, slow
from common.evaluation.audio import lsd_score, si_snr_score, snr_score

F64 = torch.float64


def noise(n: int, length: int, seed: int) -> Tensor:
    return torch.randn(n, length, generator=torch.Generator().manual_seed(seed), dtype=F64)


def sounds(n: int = 8, length: int = 8000) -> tuple[Tensor, Tensor]:
    """Restored and reference: tones, and the same a little louder with noise and an offset."""
    time = torch.arange(length, dtype=F64) / 16000
    pitch = torch.linspace(200, 3000, n, dtype=F64)[:, None]
    clean = 0.3 * (2 * math.pi * pitch * time).sin() + 0.01 * noise(n, length, 40)
    loud = torch.linspace(0.005, 0.2, n, dtype=F64)[:, None]
    return 1.1 * clean + loud * noise(n, length, 41) + 0.01, clean


SOUNDS = "8 noisy tones of 8,000 samples, 1.1 times as loud and with an offset of 0.01 (seeds 40, 41)"


@closed_form("snr", "a sound of power 4 and noise of power 1/25 orthogonal to it", "10 log₁₀(4 · 25)", relative=1e-12)
def _() -> Values:
    sound = 2 * torch.tensor([1.0, 1.0, -1.0, -1.0], dtype=F64).repeat(1, 1000)
    error = 0.2 * torch.tensor([1.0, -1.0], dtype=F64).repeat(1, 2000)
    return snr_score(sound + error, sound, split="test").value, 10 * math.log10(100)


@implementation("torchmetrics", "snr", SOUNDS, "audio.SignalNoiseRatio, in float64", relative=1e-10)
def _() -> Values:
    metric = load("torchmetrics.audio").SignalNoiseRatio().set_dtype(F64)
    return snr_score(*sounds(), split="test").value, float(metric(*sounds()))


@closed_form(
    "si_snr",
    "3.7 times a sound, with noise of 1/100 of its power, orthogonal to it and of mean 0",
    "10 log₁₀ 100",
    relative=1e-9,
)
def _() -> Values:
    sound = torch.tensor([1.0, 1.0, -1.0, -1.0], dtype=F64).repeat(1, 1000)
    error = 0.1 * torch.tensor([1.0, -1.0], dtype=F64).repeat(1, 2000)
    return si_snr_score(3.7 * (sound + error), sound, split="test").value, 20.0


@implementation("torchmetrics", "si_snr", SOUNDS, "audio.ScaleInvariantSignalNoiseRatio, in float64", relative=1e-10)
def _() -> Values:
    metric = load("torchmetrics.audio").ScaleInvariantSignalNoiseRatio().set_dtype(F64)
    return si_snr_score(*sounds(), split="test").value, float(metric(*sounds()))


@closed_form("lsd", "noise of 8,000 samples (seed 42), and 6 dB louder", "6 dB, in every frame and band", relative=1e-9)
def _() -> Values:
    clean = 0.1 * noise(1, 8000, 42)
    return lsd_score(10 ** (6 / 20) * clean, clean, split="test").value, 6.0


@slow(
    "lsd",
    f"{SOUNDS}, frames of 128 every 32",
    "frame by frame, each frequency's sum written out, under a Hann window: √(mean over them of the squared dB)",
    relative=1e-9,
)
def _() -> Values:
    n, hop = 128, 32
    t = torch.arange(n, dtype=F64)
    hann = 0.5 - 0.5 * (2 * math.pi * t / n).cos()
    angle = 2 * math.pi * torch.arange(n // 2 + 1, dtype=F64)[:, None] * t / n

    def decibels(frame: Tensor) -> Tensor:
        weighted = frame * hann / hann.sum()
        power = (angle.cos() @ weighted) ** 2 + (angle.sin() @ weighted) ** 2
        return 10 * power.clamp(min=1e-10).log10()

    restored, reference = sounds()
    found = []
    for x, y in zip(restored, reference, strict=True):
        starts = range(0, len(x) - n + 1, hop)
        apart = [(decibels(x[s : s + n]) - decibels(y[s : s + n])).square().mean().sqrt() for s in starts]
        found.append(torch.stack(apart).mean())
    ours = lsd_score(restored, reference, split="test", window=n, hop=hop).value
    return ours, float(torch.stack(found).mean())
