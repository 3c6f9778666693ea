"""Probes of maps between codes, values and latents: are they inverted, and is their log-determinant theirs?"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from common.errors import ConfigError
from common.probes.result import Findings, ProbeResult


def bijection(
    forward: Callable[[Tensor], tuple[Tensor, Tensor]],
    inverse: Callable[[Tensor], Tensor | tuple[Tensor, Tensor]],
    x: Tensor,
    *,
    z: Tensor | None = None,
    tolerance: float = 1e-7,
) -> ProbeResult:
    """inverse o forward = id, and the log-determinant equals autograd's, on non-square, multi-channel input.

        ldj_b = log |det d forward(x_b) / d x_b|   by torch.linalg.slogdet of the Jacobian, row by row from autograd

    forward + inverse = 0 cannot catch an error that both share, such as a missing H * W; the Jacobian can. Also: an
    inverse that returns a log-determinant gives minus that of forward, no call modifies its input, and no example
    leaks into another (the Jacobian between examples is zero).
    Tolerance: 1e-7 relative to max(1, |value|): float64 leaves 1e-12 for a well-conditioned map; iterative inverses
    may need a larger one. Cost: D backward passes with a batch of B, and B determinants of D x D; keep D < 200.

    Args:
        forward: x (B, ...) -> (z, ldj (B,) nats). In evaluation mode and float64: `model.double().eval()`.
        inverse: z -> x, or (x, ldj).
        x: (B, ...), float64, B >= 2; images (B, C, H, W) with C >= 2 and H != W.
        z: points at which to check forward o inverse = id too; none by default.

    Raises:
        ConfigError: x could not show the mistakes this probe is for.
    """
    if x.dtype != torch.float64:
        raise ConfigError(f"x is {x.dtype}: a Jacobian is compared in float64; use x.double() and model.double().")
    if len(x) < 2:
        raise ConfigError("a single example cannot tell a sum over the batch from one per example; use two or more.")
    if x.dim() == 4 and (x.shape[1] < 2 or x.shape[2] == x.shape[3]):
        raise ConfigError(f"images of shape {tuple(x.shape[1:])} hide mistakes: use 2 or more channels and H != W.")
    batch = len(x)
    with Findings("bijection", "inverse(forward(x)) = x, and the log-determinant is the Jacobian's") as found:
        given = x.clone().requires_grad_()
        kept = given.detach().clone()
        with torch.enable_grad():
            output, ldj = forward(given * 1)  # an in-place subject must not fail on a leaf: it is told below
        stated = found.per_example(ldj, batch, "forward's ldj")
        dims = x[0].numel()
        if output.shape[0] != batch or output[0].numel() != dims:
            raise found.broken(
                f"forward turns shape {tuple(x.shape)} into {tuple(output.shape)}: it loses or adds values"
            )
        if not output.requires_grad:
            raise found.broken("forward's output does not depend on x as far as autograd can see")
        flat = output.reshape(batch, dims)
        jacobian = torch.empty(batch, dims, dims, dtype=torch.float64)
        leak = 0.0
        for j in range(dims):
            (row,) = torch.autograd.grad(flat[:, j].sum(), given, retain_graph=True)
            jacobian[:, j] = row.detach().reshape(batch, dims).cpu()
            # The sum over examples is right only if example 0 does not influence the others.
            (own,) = torch.autograd.grad(flat[0, j], given, retain_graph=True)
            leak = max(leak, float(own[1:].abs().max()))
        found.expect(leak == 0, f"one example's output depends on another example (gradient {leak:.2g})")
        exact = torch.linalg.slogdet(jacobian).logabsdet
        scale = exact.abs().clamp_min(1)
        error = ((stated - exact).abs() / scale).max()
        worst = int((stated - exact).abs().argmax())
        found.numbers |= {"dims": dims, "ldj_error": float(error)}
        found.expect(
            bool(error <= tolerance),
            f"the log-determinant of example {worst} is {float(stated[worst]):.6g}; "
            f"the Jacobian's is {float(exact[worst]):.6g}",
        )

        with torch.no_grad():
            mine = kept.clone()
            output, ldj = forward(mine)
            found.unchanged(kept, mine, "forward")
            forwarded = output.detach().clone()
            back = inverse(output)
            found.unchanged(forwarded, output, "inverse")
            if isinstance(back, tuple):
                back, ldj_back = back
                opposite = found.per_example(ldj_back, batch, "inverse's ldj")
                gap = float(((stated + opposite).abs() / scale).max())
                found.numbers["ldj_sum"] = gap
                found.expect(gap <= tolerance, "the inverse's log-determinant is not minus forward's")
            _same(found, back, kept, tolerance, "round_trip", "inverse(forward(x)) is not x")
            if z is not None:
                start = inverse(z.clone())
                start = start[0] if isinstance(start, tuple) else start
                _same(
                    found,
                    forward(start)[0],
                    z,
                    tolerance,
                    "round_trip_z",
                    "forward(inverse(z)) is not z",
                )
    return found.result()


def _same(found: Findings, got: Tensor, wanted: Tensor, tolerance: float, name: str, complaint: str) -> None:
    if got.shape != wanted.shape:
        raise found.broken(f"{complaint}: its shape is {tuple(got.shape)} instead of {tuple(wanted.shape)}")
    error = float(((got - wanted).abs() / wanted.abs().clamp_min(1)).max())
    found.numbers[name] = error
    found.expect(error <= tolerance, f"{complaint}: off by up to {error:.3g} (relative to max(1, |value|))")


class Codec(Protocol):
    """`Preprocess`: both ways."""

    def encode(self, u8: Tensor, generator: torch.Generator, /) -> tuple[Tensor, Tensor]:
        """uint8 (B, C, H, W) -> (x, ldj (B,) nats)."""

    def decode(self, x: Tensor, /) -> Tensor:
        """x -> uint8 (B, C, H, W)."""


def quantise(
    preprocess: Codec,
    *,
    levels: int = 256,
    shape: tuple[int, int, int] = (3, 2, 5),
    repeats: int = 64,
    seed: int = 0,
) -> ProbeResult:
    """All codes survive decode o encode, and the caller's tensor is unchanged.

    Every code meets every position of a non-square, multi-channel image, `repeats` times with other noise. Also:
    decode gives uint8 of the images' shape, and leaves its input alone; what a model samples beyond the range ends at
    the nearest code and does not wrap around; and where encode adds no noise decode rounds to the nearest code (0.4
    steps to either side give the same code), which floor(255 x) does not.
    Exact: not one code may differ. Cost: repeats * levels images of `shape`.

    Args:
        preprocess: the project's own, with `encode` and `decode`.
        levels: how many codes a value can take, 2 to 256.
        shape: (C, H, W).

    Raises:
        ConfigError: levels out of range.
    """
    if not 2 <= levels <= 256:
        raise ConfigError(f"levels = {levels}: the probe takes uint8 codes, 2 to 256 levels.")
    channels, height, width = shape
    dims = channels * height * width
    with Findings("quantise", "all codes survive decode(encode(.)), and the caller's tensor is unchanged") as found:
        # Image i holds code (i + position) mod levels: over `levels` images each position sees each code.
        code = (torch.arange(levels)[:, None] + torch.arange(dims)) % levels
        images = code.to(torch.uint8).view(levels, *shape)
        wrong = torch.zeros(levels, dtype=torch.bool)
        previous: Tensor | None = None
        noisy = False
        for repeat in range(repeats):
            given = images.clone()
            x, ldj = preprocess.encode(given, torch.Generator().manual_seed(seed + repeat))
            if repeat == 0:
                found.per_example(ldj, levels, "encode's ldj")
                found.unchanged(images, given, "encode")
                if not x.dtype.is_floating_point:
                    raise found.broken(f"encode gives {x.dtype}, not floating point")
            kept = x.clone()
            back = preprocess.decode(x)
            if repeat == 0:
                found.unchanged(kept, x, "decode")
                if back.dtype != torch.uint8 or back.shape != images.shape:
                    raise found.broken(
                        f"decode gives {back.dtype} {tuple(back.shape)}, not torch.uint8 {tuple(images.shape)}"
                    )
            wrong[images[back != images].long()] = True
            noisy = noisy or (previous is not None and not torch.equal(previous, kept))
            previous = kept
            if repeat == 1 and not noisy:
                break  # no noise: every further repeat is the same
        lost = wrong.nonzero().flatten().tolist()
        found.numbers |= {"codes": levels, "lost": len(lost)}
        shown = ", ".join(map(str, lost[:5])) + (", ..." if len(lost) > 5 else "")
        found.expect(not lost, f"{len(lost)} of {levels} codes do not survive decode(encode(.)): {shown}")

        assert previous is not None
        _beyond(found, preprocess, images, previous)
        if not noisy and not lost:
            _nearest(found, preprocess, images, previous, levels)
    return found.result()


def _beyond(found: Findings, preprocess: Codec, images: Tensor, x: Tensor) -> None:
    """Values outside what encode produces decode to the code at that end."""
    low, high = float(x.min()), float(x.max())
    for end, outside in ((low, low - (high - low)), (high, high + (high - low))):
        expected = int(images[x == end][0])
        decoded = preprocess.decode(torch.full_like(x[:1], outside))
        found.expect(
            bool((decoded == expected).all()),
            f"x = {outside:.4g}, beyond the range of encode, decodes to {int(decoded.flatten()[0])}, "
            f"not to the code at that end, {expected}",
        )


def _nearest(found: Findings, preprocess: Codec, images: Tensor, x: Tensor, levels: int) -> None:
    """Without noise, values up to 0.4 of the way to the next code's decode to their own code."""
    value = torch.empty(levels, dtype=x.dtype)
    value[images.flatten().long()] = x.flatten()
    for sign in (-1, 1):
        neighbour = (torch.arange(levels) + sign).clamp(0, levels - 1)
        moved = value + 0.4 * (value[neighbour] - value)
        back = preprocess.decode(moved[images.long()])
        found.expect(
            bool(torch.equal(back, images)),
            "decode does not round to the nearest code: 0.4 steps from a code it gives another "
            f"({int((back != images).sum())} of {images.numel()} values)",
        )
