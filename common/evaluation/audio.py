"""How near restored sound is to what it should be: SNR, scale-invariant SNR and log-spectral distance, in dB.

Restored sounds x and references y are pairs of segments (N, T), floats with a full scale of 1. Every value is a mean
over segments of what each segment has, with the standard error of that mean; segments of one recording are less
independent than it takes them for.

    SNR = 10 log10(|y|^2 / |x - y|^2)                                                     higher is better

    SI-SNR = 10 log10(|a y|^2 / |x - a y|^2),  a = <x, y> / |y|^2, both without their mean (Luo & Mesgarani 2018)

    LSD = mean over frames of sqrt(mean over frequencies of (X - Y)^2)                    lower is better

with log-power spectra in dB, X = 10 log10 max(|S_x|^2, floor) (Gray & Markel 1976; Kuleshov, Enam & Ermon 2017, section
4.1). S is the Fourier transform of a frame under a Hann window, divided by the window's sum, so that a power of 1 is
that of a constant at full scale. Frames lie within the segment: nothing is padded, and what is left over at its end
counts nowhere. Papers that leave out the factor 10 have a tenth of this number, with natural logarithms 0.23 of it.

A reference that is silent has no signal to compare a noise with, and is refused.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from tqdm import tqdm

from common.errors import ConfigError, DataError
from common.evaluation.likelihood import mean_score
from common.records import Score


def _decibels(signal: Tensor, noise: Tensor) -> Tensor:
    """10 log10 of the ratio of two sounds' powers, (..., T) -> (...)."""
    return 10 * torch.log10(signal.square().sum(-1) / noise.square().sum(-1))


def snr(restored: Tensor, reference: Tensor) -> Tensor:
    """Signal-to-noise ratio of each segment, (N, T) twice -> (N,) dB, float64; +inf for equal segments."""
    x, y = restored.double(), reference.double()
    return _decibels(y, x - y)


def si_snr(restored: Tensor, reference: Tensor) -> Tensor:
    """Scale-invariant signal-to-noise ratio of each segment, (N, T) twice -> (N,) dB, float64.

    Neither the loudness of the restored segment nor a constant added to it matters, nor its sign. +inf, or as much as
    rounding leaves of it, for a multiple of the reference; -inf for what is orthogonal to it.
    """
    x, y = (sound.double() - sound.double().mean(-1, keepdim=True) for sound in (restored, reference))
    target = (torch.linalg.vecdot(x, y) / y.square().sum(-1))[..., None] * y
    return _decibels(target, x - target)


def log_spectral_distance(
    restored: Tensor, reference: Tensor, *, window: int = 2048, hop: int = 512, floor: float = -100.0
) -> Tensor:
    """Log-spectral distance of each segment, (N, T) twice -> (N,) dB, float64.

    Args:
        window: samples of a frame, under a Hann window.
        hop: samples from one frame to the next.
        floor: dB of full scale; powers below it count as it.

    Raises:
        DataError: segments shorter than the window.
        ConfigError: settings that cannot be.
    """
    if window < 2 or hop < 1 or not math.isfinite(floor):
        raise ConfigError(f"window = {window}, hop = {hop}, floor = {floor}: at least 2, at least 1, and a number.")
    if reference.shape[-1] < window:
        raise DataError(f"segments of {reference.shape[-1]} samples are shorter than the window of {window}.")
    hann = torch.hann_window(window, dtype=torch.float64, device=reference.device)

    def spectrum(sound: Tensor) -> Tensor:
        """Log power, (N, frequencies, frames)."""
        s = torch.stft(sound.double(), window, hop, window=hann / hann.sum(), center=False, return_complex=True)
        return 10 * torch.log10(s.abs().square().clamp(min=10 ** (floor / 10)))

    return (spectrum(restored) - spectrum(reference)).square().mean(1).sqrt().mean(1)


def snr_score(
    restored: Tensor,
    reference: Tensor,
    *,
    split: str,
    protocol: str = "",
    weights: str = "raw",
    batch_size: int = 100,
    progress: str = "",
) -> Score:
    """The mean SNR of the segments, dB, as a `Score` named `snr`; higher is better.

    Args:
        restored: floats (N, T) what the model made of degraded segments.
        reference: floats (N, T) the segments as they should be, in the same order.
        split: which split the references are: "train", "val" or "test".
        protocol: what else decides the value and is the same in all runs that are to be compared: the degradation,
            the sampling rate.
        batch_size: segments at once; decides memory only.
        progress: label of a progress bar; none when empty.

    Raises:
        DataError: other types, lengths or numbers of segments, none, one that is not a finite number, a silent
            reference, or a segment that equals its reference.
        ConfigError: a batch size below 1.
    """
    values, how = _by_segment(snr, restored, reference, batch_size, progress)
    _refuse_infinite(values, "SNR", "equal their references")
    how = f"{how}; {protocol}" if protocol else how
    return mean_score(values, "snr", unit="dB", kind="estimate", split=split, protocol=how, weights=weights)


def si_snr_score(
    restored: Tensor,
    reference: Tensor,
    *,
    split: str,
    protocol: str = "",
    weights: str = "raw",
    batch_size: int = 100,
    progress: str = "",
) -> Score:
    """The mean scale-invariant SNR of the segments, dB, as a `Score` named `si_snr`; higher is better.

    Arguments and errors are those of `snr_score`; a restored segment or a reference that is constant has no scale, and
    is refused as silent.
    """
    values, how = _by_segment(si_snr, restored, reference, batch_size, progress, without_mean=True)
    _refuse_infinite(values, "SI-SNR", "are multiples of their references, or have nothing of them")
    how = f"{how}, means removed"
    how = f"{how}; {protocol}" if protocol else how
    return mean_score(values, "si_snr", unit="dB", kind="estimate", split=split, protocol=how, weights=weights)


def lsd_score(
    restored: Tensor,
    reference: Tensor,
    *,
    split: str,
    window: int = 2048,
    hop: int = 512,
    floor: float = -100.0,
    protocol: str = "",
    weights: str = "raw",
    batch_size: int = 20,
    progress: str = "",
) -> Score:
    """The mean log-spectral distance of the segments, dB, as a `Score` named `lsd`; lower is better.

    Arguments and errors are those of `snr_score` and `log_spectral_distance`; equal segments are welcome.
    """

    def measure(x: Tensor, y: Tensor) -> Tensor:
        return log_spectral_distance(x, y, window=window, hop=hop, floor=floor)

    values, how = _by_segment(measure, restored, reference, batch_size, progress)
    how = f"{how}, Hann window of {window}, hop {hop}, floor {floor:g} dB of full scale"
    how = f"{how}; {protocol}" if protocol else how
    return mean_score(values, "lsd", unit="dB", kind="estimate", split=split, protocol=how, weights=weights)


def _by_segment(
    measure: Callable[[Tensor, Tensor], Tensor],
    restored: Tensor,
    reference: Tensor,
    batch_size: int,
    progress: str,
    without_mean: bool = False,
) -> tuple[Tensor, str]:
    """What each pair has, (N,) float64 on the CPU, and the protocol."""
    if batch_size < 1:
        raise ConfigError(f"batch_size = {batch_size}: at least one segment at once (>= 1).")
    for what, sounds in (("restored segments", restored), ("references", reference)):
        if not sounds.is_floating_point():
            raise DataError(
                f"{what} are floats with a full scale of 1, not {str(sounds.dtype).removeprefix('torch.')}: divide "
                "samples of a file by their full scale."
            )
        if sounds.ndim != 2:
            raise DataError(f"{what} are (N, T), one channel each; these have the shape {tuple(sounds.shape)}.")
    if len(restored) != len(reference):
        raise DataError(f"{len(restored)} restored segments and {len(reference)} references: they are pairs.")
    if restored.shape != reference.shape:
        raise DataError(
            f"restored segments have {restored.shape[1]} samples and references {reference.shape[1]}: cut or shift "
            "them so that a sample meets its own."
        )
    if reference.numel() == 0:
        raise DataError("there is nothing to compare: no segments, or segments without a sample.")
    for what, sounds in (("restored segment", restored), ("reference", reference)):
        if bad := (~sounds.isfinite()).any(1).nonzero().flatten().tolist():
            raise DataError(f"{what} {bad[0]} has a sample that is not a finite number ({len(bad)} have).")
    _refuse_silent(reference, "references", without_mean)
    if without_mean:
        _refuse_silent(restored, "restored segments", without_mean)
    values = []
    with tqdm(total=len(reference), desc=progress, unit="segment", disable=not progress, mininterval=0.5) as bar:
        for x, y in zip(torch.split(restored, batch_size), torch.split(reference, batch_size), strict=True):
            values.append(measure(x, y).cpu())
            bar.update(len(x))
    return torch.cat(values), f"{len(reference):,} segments of {reference.shape[1]:,} samples"


def _refuse_silent(sounds: Tensor, what: str, without_mean: bool) -> None:
    level = sounds[:, :1] if without_mean else 0.0
    if silent := (sounds == level).all(1).nonzero().flatten().tolist():
        kind = "constant" if without_mean else "silent"
        raise DataError(
            f"{len(silent)} of {len(sounds)} {what} are {kind} (the first is {silent[0]}): a ratio to silence says "
            "nothing. Leave such segments out, and say so."
        )


def _refuse_infinite(values: Tensor, name: str, why: str) -> None:
    if infinite := values.isinf().nonzero().flatten().tolist():
        raise DataError(
            f"{len(infinite)} of {len(values)} restored segments {why} (the first is {infinite[0]}): their {name} is "
            "infinite and has no mean. Are these the restored segments?"
        )
