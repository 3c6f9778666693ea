"""Measures of sound against closed forms and slow references."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from common.errors import ConfigError, DataError
from common.evaluation.audio import log_spectral_distance, lsd_score, si_snr, si_snr_score, snr, snr_score


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(n: int = 6, samples: int = 5000, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn(n, samples, generator=seeded(seed))


def sine(cycles: int, samples: int = 4096) -> Tensor:
    return torch.sin(2 * math.pi * cycles * torch.arange(samples, dtype=torch.float64) / samples)[None]


# -- SNR and SI-SNR ----------------------------------------------------------------------------------------------------


def test_noise_of_a_known_power() -> None:
    signal, other = sine(50), sine(170)  # orthogonal, of equal power
    for level in (1.0, 0.1, 0.01):
        expected = -20 * math.log10(level)
        assert float(snr(signal + level * other, signal)) == pytest.approx(expected)
        assert float(si_snr(signal + level * other, signal)) == pytest.approx(expected)
    assert float(snr(torch.zeros_like(signal), signal)) == pytest.approx(0)
    assert float(snr(signal, signal)) == math.inf


def test_scale_offset_and_sign_matter_to_snr_only() -> None:
    y = noise(3)
    x = y + noise(3, seed=1) / 4
    plain = si_snr(x, y)
    for changed in (0.3 * x, -5 * x, x + 0.7):
        torch.testing.assert_close(si_snr(changed, y), plain, rtol=1e-4, atol=1e-4)
        assert (snr(changed, y) < snr(x, y) - 1).all()
    # half as loud and otherwise right: the error is half the signal
    assert float(snr(0.5 * y, y)[0]) == pytest.approx(20 * math.log10(2), abs=1e-4)


def test_si_snr_is_that_of_the_best_scale() -> None:
    """Of all multiples of the reference a y is the nearest to x: |x - a y| is smallest there."""
    y = noise(1).double()
    x = 0.4 * y + noise(1, seed=1).double() + 0.2
    x_0, y_0 = x - x.mean(), y - y.mean()
    left = [float((x_0 - a * y_0).square().sum()) for a in torch.linspace(0, 1, 4001, dtype=torch.float64)]
    power = float(x_0.square().sum()) - min(left)  # Pythagoras: what is not left over is the target's
    assert float(si_snr(x, y)) == pytest.approx(10 * math.log10(power / min(left)), abs=1e-3)


# -- LSD ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gain", [-12.0, 0.0, 3.0])
def test_a_gain_is_as_far_as_it_is_in_decibels(gain: float) -> None:
    y = noise(4).double()
    louder = y * 10 ** (gain / 20)
    found = log_spectral_distance(louder, y, floor=-200)  # far below what there is
    assert found.tolist() == pytest.approx([abs(gain)] * 4, abs=1e-9)


def slow_lsd(x: np.ndarray, y: np.ndarray, window: int, hop: int, floor: float) -> float:
    """Frame by frame, frequency by frequency, by the definition of the transform."""
    t = np.arange(window)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * t / window)
    frames = []
    for start in range(0, len(x) - window + 1, hop):
        squares = []
        for k in range(window // 2 + 1):
            wave = hann / hann.sum() * np.exp(-2j * np.pi * k * t / window)
            a, b = (
                10 * np.log10(max(abs((wave * s[start : start + window]).sum()) ** 2, 10 ** (floor / 10)))
                for s in (x, y)
            )
            squares.append((a - b) ** 2)
        frames.append(math.sqrt(np.mean(squares)))
    return float(np.mean(frames))


@pytest.mark.parametrize("floor", [-100.0, -45.0])
def test_lsd_agrees_with_a_slow_reference(floor: float) -> None:
    y = noise(2, 70).double()
    x = y.roll(3, 1) * torch.linspace(0, 1, 70)
    found = log_spectral_distance(x, y, window=16, hop=5, floor=floor)
    for i in range(2):
        assert float(found[i]) == pytest.approx(slow_lsd(x[i].numpy(), y[i].numpy(), 16, 5, floor), rel=1e-9)


def test_powers_are_of_full_scale_and_floored() -> None:
    """A constant at full scale has a power of 0 dB, at one frequency and (half as high) its neighbour; else silence."""
    loud, quiet = torch.ones(1, 64).double(), torch.zeros(1, 64).double()
    found = float(log_spectral_distance(quiet, loud, window=32, hop=32, floor=-80))
    expected = math.sqrt((80**2 + (80 + 20 * math.log10(0.5)) ** 2) / 17)
    assert found == pytest.approx(expected, rel=1e-6)


# -- Scores ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("score", "measure", "name"),
    [(snr_score, snr, "snr"), (si_snr_score, si_snr, "si_snr"), (lsd_score, log_spectral_distance, "lsd")],
)
def test_a_score_is_the_mean_over_segments(score, measure, name: str) -> None:  # type: ignore[no-untyped-def]
    y = noise(7)
    x = y + noise(7, seed=1) * torch.linspace(0.1, 2, 7)[:, None]
    kept = x.clone(), y.clone()
    values = measure(x, y)
    found = score(x, y, split="test", protocol="16 kHz")
    assert found.value == pytest.approx(float(values.mean()))
    assert found.stderr == pytest.approx(float(values.std()) / math.sqrt(7))
    assert (found.name, found.unit, found.kind, found.n, found.split) == (name, "dB", "estimate", 7, "test")
    assert found.protocol.startswith("7 segments of 5,000 samples")
    assert found.protocol.endswith("; 16 kHz")
    order = torch.randperm(7, generator=seeded(2))
    for batch_size in (1, 3):
        part = score(x[order], y[order], split="test", batch_size=batch_size)
        assert (part.value, part.stderr) == pytest.approx((found.value, found.stderr), rel=1e-9)
    assert torch.equal(x, kept[0])
    assert torch.equal(y, kept[1])


def test_protocols_say_what_decides_the_value() -> None:
    x, y = noise(), noise(seed=1)
    assert si_snr_score(x, y, split="test").protocol.endswith("samples, means removed")
    found = lsd_score(x, y, split="test", window=64, hop=16, floor=-60)
    assert found.protocol.endswith("samples, Hann window of 64, hop 16, floor -60 dB of full scale")


@pytest.mark.parametrize("score", [snr_score, si_snr_score, lsd_score])
@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (noise().to(torch.int16), noise(), "restored segments are floats with a full scale of 1, not int16"),
        (noise(), noise().long(), "references are floats"),
        (noise()[0], noise()[0], r"are \(N, T\), one channel each"),
        (noise(5), noise(6), "5 restored segments and 6 references"),
        (noise(samples=4999), noise(), "have 4999 samples and references 5000"),
        (noise(0), noise(0), "nothing to compare"),
        (noise() / 0, noise(), "restored segment 0 has a sample that is not a finite number .6 have"),
        (noise(), noise() * torch.tensor([1, 1, math.nan, 1, 1, 1])[:, None], "reference 2 has a sample"),
        (noise(), noise() * torch.tensor([1, 1, 1, 0, 0, 1])[:, None], "2 of 6 references are .* .the first is 3"),
    ],
)
def test_what_are_no_pairs_is_refused(score, x: Tensor, y: Tensor, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(DataError, match=message):
        score(x, y, split="test")


def test_ratios_that_have_no_mean_are_refused() -> None:
    y = noise()
    x = y + noise(seed=1)
    x[4] = y[4]
    with pytest.raises(DataError, match=r"1 of 6 restored segments equal their references \(the first is 4"):
        snr_score(x, y, split="test")
    assert lsd_score(y, y, split="test").value == 0
    x[2] = 0.25
    with pytest.raises(DataError, match=r"1 of 6 restored segments are constant \(the first is 2"):
        si_snr_score(x, y, split="test")
    assert snr_score(torch.zeros_like(y), y, split="test").value == pytest.approx(0)
    square = torch.tensor([[1.0, -1.0] * 8])
    with pytest.raises(DataError, match="multiples of their references"):
        si_snr_score(2 * square, square, split="test")


@pytest.mark.parametrize(
    "settings", [{"window": 1}, {"hop": 0}, {"floor": -math.inf}, {"floor": math.nan}, {"batch_size": 0}]
)
def test_settings_that_cannot_be_are_refused(settings) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError):
        lsd_score(noise(), noise(), split="test", **settings)


def test_segments_shorter_than_the_window_are_refused() -> None:
    with pytest.raises(DataError, match="2047 samples are shorter than the window of 2048"):
        lsd_score(noise(samples=2047), noise(samples=2047), split="test")
