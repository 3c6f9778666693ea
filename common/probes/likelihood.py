"""Probes of likelihoods: is the number a log-probability at all, of what it is said to be, and a bound where it is
said to bound."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from common.errors import ConfigError
from common.probes.result import Findings, ProbeResult, Z, rounding

LogProb = Callable[[Tensor], Tensor]
"""x (B, ...) -> log p(x) in nats, (B,)."""

BoundFn = Callable[[Tensor, int, torch.Generator], Tensor]
"""(x (B, ...), k, generator) -> L_k in nats, (B,)."""


class Encoder(Protocol):
    """The half of `Preprocess` that a likelihood depends on."""

    def encode(self, u8: Tensor, generator: torch.Generator, /) -> tuple[Tensor, Tensor]:
        """uint8 (B, C, H, W) -> (x, log |dx/du8| in nats (B,))."""


def _bits_per_dim(log_prob: Tensor, dims: int) -> Tensor:
    return -log_prob / (dims * math.log(2))


def bits(
    preprocess: Encoder,
    *,
    levels: int = 256,
    shape: tuple[int, int, int] = (3, 2, 5),
    bits_per_dim: Callable[[Tensor, int], Tensor] = _bits_per_dim,
    seed: int = 0,
) -> ProbeResult:
    """Uniform codes under the uniform model score exactly log2(levels) bits per dimension.

    A model scores a code u through log P(u) = log q(x) + ldj with (x, ldj) = encode(u). The exactly uniform model has
    in x the density of encoded uniform codes, so with it log P(u) is -D log(levels) for every image. That density is
    measured here, not taken from a formula: many encodings of a single pixel are sorted, and

        integral of q(x) dx = 1   with   q(x) = exp(-ldj(x)) / levels

    is checked by the trapezoidal rule over the sorted points, in total and for each code apart, which ties ldj to the
    map that was really applied. Then images of `shape` are scored with that q, which ties ldj to all of C, H and W.
    Where encode gives discrete x (no dequantisation) q is the mass 1/levels, so ldj must be 0.

    Tolerances: N sorted draws leave out an end of probability t/N with chance (1 + t) exp(-t), so the total may be off
    by 30/N (N > 10^5, i.e. 0.0004 bits; false alarm 3e-12), one code by 30/n of its n draws, and a score by 0.002
    bits. The noise must be uniform within a code (Kolmogorov-Smirnov distance below the DKW bound at 1e-7).

    Needs a preprocessing that acts on each value alone and takes images of any shape. `Binarise` is one only for
    data that is binary already (levels=2). Cost: 10^5 encoded pixels, some 50 ms.

    Args:
        preprocess: the project's own; only `encode` is used.
        levels: how many codes a value can take, 2 to 256.
        shape: (C, H, W) of the test images, to be left non-square and multi-channel.
        bits_per_dim: the project's own (log_prob in nats (B,), D) -> bits per dimension (B,).

    Raises:
        ConfigError: levels out of range.
    """
    if not 2 <= levels <= 256:
        raise ConfigError(f"levels = {levels}: the probe takes uint8 codes, 2 to 256 levels.")
    expected = math.log2(levels)
    with Findings("bits", "uniform codes under the uniform model score log2(levels) bits/dim") as found:
        found.numbers["expected"] = expected
        generator = torch.Generator().manual_seed(seed)
        per_code = max(400, -(-(10**5) // levels))
        n = levels * per_code
        codes = torch.arange(levels, dtype=torch.uint8).repeat_interleave(per_code)
        encoded, ldj = preprocess.encode(codes.view(n, 1, 1, 1), generator)
        ldj = found.per_example(ldj, n, "encode's ldj")
        if encoded.numel() != n:
            raise found.broken(f"encode turns {n} values into {encoded.numel()}")
        x = encoded.detach().double().cpu().reshape(n)
        if not bool(torch.isfinite(x).all() & torch.isfinite(ldj).all()):
            raise found.broken("encode gives values or log-determinants that are not finite")

        distinct = len(torch.unique(x))
        if distinct <= levels:
            found.expect(
                distinct == levels and bool((x.view(levels, per_code).diff(dim=1) == 0).all()),
                f"{levels} codes are encoded as {distinct} values, not one to one: "
                "a likelihood of x is no likelihood of the codes",
            )
            found.expect(
                bool((ldj == 0).all()),
                f"x is discrete (no noise is added), so it has a mass, not a density, and ldj must be 0, "
                f"not {ldj.mean():.4f}",
            )
            total, mass_tolerance = 1.0, 0.0
            x_sorted, log_q_sorted = (
                x[::per_code],
                torch.full((levels,), -math.log(levels)).double(),
            )
        else:
            log_q = -ldj - math.log(levels)
            order = torch.argsort(x)
            x_sorted, log_q_sorted = x[order], log_q[order]
            total = float(torch.trapezoid(log_q_sorted.exp(), x_sorted))
            mass_tolerance = 30 / n
            _within_codes(found, x.view(levels, per_code), log_q.view(levels, per_code))
        found.numbers["integral"] = total
        found.expect(
            abs(total - 1) <= mass_tolerance,
            f"encode's ldj is not that of its map: the uniform model's density integrates to {total:.5f}, not 1",
        )

        dims = math.prod(shape)
        images = torch.randint(0, levels, (512, *shape), dtype=torch.uint8, generator=generator)
        encoded, ldj = preprocess.encode(images, generator)
        ldj = found.per_example(ldj, len(images), "encode's ldj")
        pixels = encoded.detach().double().cpu().reshape(len(images), -1)
        if pixels.shape[1] != dims:
            raise found.broken(f"encode turns {dims} values into {pixels.shape[1]}")
        log_q_image = _interpolate(pixels, x_sorted, log_q_sorted).sum(1) - dims * math.log(max(total, 1e-300))
        score = bits_per_dim(log_q_image + ldj, dims)
        score = found.per_example(score, len(images), "bits_per_dim")
        measured = float(score.mean())
        found.numbers["bits_per_dim"] = round(measured, 4)
        found.expect(
            abs(measured - expected) <= 0.002,
            f"the uniform model scores {measured:.4f} bits/dim instead of {expected:.4f}",
        )
        # The rare pixel beyond the outermost measured one may spoil a few images, not a tenth of them.
        spread = float((score - expected).abs().quantile(0.9))
        found.expect(
            spread <= 0.002 or abs(measured - expected) > 0.002,
            f"the score is right on average only: images are off by {spread:.4f} bits/dim",
        )
    return found.result()


def _within_codes(found: Findings, x: Tensor, log_q: Tensor) -> None:
    """Each code's own interval has mass 1/levels and is filled uniformly; x and log_q are (levels, draws)."""
    levels, draws = x.shape
    order = torch.argsort(x, dim=1)
    x, q = x.gather(1, order), log_q.gather(1, order).exp()
    inner = levels * torch.cumulative_trapezoid(q, x, dim=1)  # (levels, draws - 1), from 0 to about 1
    worst = int((inner[:, -1] - 1).abs().argmax())
    found.expect(
        bool((inner[:, -1] - 1).abs().max() <= 30 / draws),
        f"code {worst} has {float(inner[worst, -1]):.3f} of the probability it should have under the uniform model",
    )
    n = levels * draws
    position = torch.cat([torch.zeros(levels, 1, dtype=x.dtype), inner], 1).flatten().sort().values
    position = position + 1 / (draws + 1)  # the first draw of a code was taken for its lower end
    distance = float((position - (torch.arange(n, dtype=x.dtype) + 0.5) / n).abs().max())
    limit = math.sqrt(math.log(2 / 1e-7) / (2 * n)) + 5 / draws
    found.expect(
        distance <= limit,
        f"the noise added to a code is not uniform under ldj (distance {distance:.3f}, at most {limit:.3f})",
    )


def _interpolate(at: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """y at the points `at` by linear interpolation of (x sorted, y), constant beyond the ends."""
    x, order = x.sort()
    y = y[order]
    right = torch.searchsorted(x, at.contiguous()).clamp(1, len(x) - 1)
    left = right - 1
    width = (x[right] - x[left]).clamp_min(1e-300)
    weight = ((at - x[left]) / width).clamp(0, 1)
    return y[left] + weight * (y[right] - y[left])


def bound(
    bound_fn: BoundFn,
    log_p: Tensor | LogProb,
    x: Tensor,
    *,
    ks: Sequence[int] = (1, 2, 5, 50),
    elbo: Callable[[Tensor, torch.Generator], Tensor] | None = None,
    log_weights: BoundFn | None = None,
    covering: bool = False,
    repeats: int = 40,
    rows: int = 128,
    seed: int = 0,
) -> ProbeResult:
    """In expectation ELBO = L_1 <= L_k <= L_k' <= log p for k < k', and L_k is the log-mean of k weights.

        L_k(x) = E log 1/k sum_i w_i,   w_i = p(x, h_i) / q(h_i|x)     (Burda et al. 2016, equation 8, Theorem 1)

    Checked, each as a mean over x and noise with its Monte Carlo standard error:
      - no L_k exceeds log p, and none is below an L_k of fewer samples;
      - L_k agrees, both ways, with the log-mean-exp of k single weights drawn by the probe itself. This is what
        finds a surrogate, a missing log k, a mean of logarithms, or a k that is not the k asked for;
      - if `covering`, the weights average to p(x): a bound that stays too low belongs to another model. Only where
        q(h|x) is as wide as the posterior: a narrow q may miss a part of it in every sample ever drawn;
      - L_1 is the ELBO: bit for bit when `elbo` gives one number per sample too, in expectation when it takes its KL
        in closed form;
      - the noise comes from the generator: the same seed gives the same bits.
    Tolerance: 6 standard errors over `repeats` calls (see `result.Z`) plus rounding. The probe fails as inconclusive
    where what one more sample adds to the smallest k > 1 is not itself 6 standard errors: then use a worse encoder
    (an untrained one will do), or more rows.
    Cost: about repeats * rows * max(ks) * (len(ks) + 1) decoded samples, 1.3 million by default: decode tiny ones.

    Args:
        bound_fn: (x, k, generator) -> L_k, (B,) nats; for a `Bound`: `lambda x, k, g: m.elbo(x, k=k, generator=g)`.
        log_p: the exact log p(x), (B,) or a function of x; `log_marginal` computes it for one or two latents.
        x: (B, ...) a few different examples.
        ks: numbers of samples; below about 5 is where k and k + 1 can be told apart.
        elbo: (x, generator) -> (B,): the ELBO as the project trains or reports it apart from `bound_fn`.
        log_weights: (x, 1, generator) -> log w, (1, B), one sample. Needed if bound_fn at k = 1 is not a single log
            weight, for instance because it takes the KL in closed form.
        covering: q(h|x) has at least the posterior's tails, as the prior has.
        repeats: independent calls per k, at least 40.
        rows: examples per call and max(ks) samples; x is repeated, and every row must get noise of its own.

    Raises:
        ConfigError: no ks, a k below 1, or too few repeats for the tolerance to hold.
    """
    ks = sorted(set(ks))
    if not ks or ks[0] < 1:
        raise ConfigError(f"ks = {list(ks)}: a bound takes at least one sample (k >= 1).")
    if repeats < 40:
        raise ConfigError(f"repeats = {repeats}: at least 40 are needed for a standard error to be trusted.")
    copies = max(1, rows // len(x))

    def tiled(times: int) -> Tensor:
        """x, `times` * `copies` times over."""
        return x.repeat(times * copies, *(1,) * (x.dim() - 1))

    def source(stream: int) -> torch.Generator:
        return torch.Generator(device=x.device).manual_seed(10**6 * seed + stream)

    with Findings("bound", "ELBO = L_1 <= L_k <= L_k' <= log p, and L_k is the log-mean of k weights") as found:
        with torch.no_grad():
            exact = log_p(x) if callable(log_p) else log_p
        exact = found.per_example(exact, len(x), "log_p")
        target = float(exact.mean())
        found.numbers["log_p"] = target

        dtype = torch.float64

        def draw(value: Tensor, n: int, what: str) -> Tensor:
            nonlocal dtype
            values = found.per_example(value, n, what)
            if value.dtype.is_floating_point and value.dtype != torch.float64:
                dtype = value.dtype
            return values

        def single(examples: Tensor, noise: torch.Generator) -> Tensor:
            if log_weights is None:
                return bound_fn(examples, 1, noise)
            value = log_weights(examples, 1, noise)
            if value.dim() != 2 or len(value) != 1:
                raise found.broken(
                    f"log_weights has shape {tuple(value.shape)} for k = 1; (1, {len(examples)}) is expected"
                )
            return value[0]

        # As many log weights for each k as for the reference: small k take the most rows, and are where one sample
        # more or less can be told. Standard errors are over calls, which are independent.
        telling = next((k for k in ks if k > 1), 1)  # the k that must be told from k + 1
        pool_size = max(ks[-1], telling + 1, 16)
        measured: dict[int, Tensor] = {}
        for k in ks:
            examples, noise = tiled(pool_size // k), source(k)
            n = len(examples)
            with torch.no_grad():
                values = [draw(bound_fn(examples, k, noise), n, f"L_{k}") for _ in range(repeats)]
                again = draw(bound_fn(examples, k, source(k)), n, f"L_{k}")
            found.expect(
                bool(torch.equal(values[0], again)),
                f"L_{k} differs between two calls with equal generators: its noise comes from elsewhere",
            )
            first = values[0].view(-1, len(x))
            found.expect(
                not torch.equal(values[0], values[1]) or bool(torch.equal(first, first[:1].expand_as(first))),
                f"L_{k} has the same noise in every call, wherever the generator stands",
            )
            measured[k] = torch.stack([value.mean() for value in values])
            found.numbers[f"L_{k}"] = float(measured[k].mean())
        examples, noise = tiled(pool_size), source(0)
        pools = []
        reference: dict[int, list[Tensor]] = {k: [] for k in {*ks, telling + 1}}
        for _ in range(repeats):
            with torch.no_grad():
                pool = draw(single(examples, noise), len(examples), "one log weight")
            pool = pool.view(pool_size, copies * len(x))
            pools.append(pool)
            for k, means in reference.items():
                groups = pool_size // k
                weights = pool[: groups * k].view(groups, k, -1)
                means.append((weights.logsumexp(1) - math.log(k)).mean())
        slack = rounding(dtype, target)

        def below(low: Tensor, high: Tensor | float, complaint: str) -> None:
            excess, error = _mean_and_error(low - high)
            found.expect(
                excess <= Z * error + slack,
                f"{complaint}: by {excess:.4f} nats, standard error {error:.4f}",
            )

        for k in ks:
            below(measured[k], target, f"L_{k} exceeds log p")
        for k, next_k in itertools.pairwise(ks):
            below(measured[k], measured[next_k], f"L_{k} exceeds L_{next_k}")
        for k in ks:
            difference, error = _mean_and_error(measured[k] - torch.stack(reference[k]))
            found.expect(
                abs(difference) <= Z * error + slack,
                f"L_{k} is not the log-mean of {k} weights: it is off by {difference:+.4f} nats, "
                f"standard error {error:.4f}",
            )
        few, more = torch.stack(reference[telling]), torch.stack(reference[telling + 1])
        step = float((more - few).mean())
        _, error = _mean_and_error(measured[telling] - few)
        found.numbers["next_k_adds"] = step
        found.expect(
            step > Z * error + slack,
            f"inconclusive: one sample more than {telling} adds {step:.4f} nats, which a standard error of "
            f"{error:.4f} hides; use an encoder further from the posterior, or more rows",
        )

        log_w = torch.cat(pools).view(-1, copies, len(x))
        per_call = (log_w - exact).clamp_max(700).exp().mean((1, 2))  # of w / p(x); calls are independent
        mean, error = _mean_and_error(per_call)
        found.numbers["mean_weight"] = mean
        found.expect(
            not covering or abs(mean - 1) <= Z * error + slack,
            f"the weights average to {mean:.4f} p(x), standard error {error:.4f}: they are not those of this log p",
        )

        if elbo is not None:
            examples, left, right = tiled(1), source(10**6 - 1), source(10**6 - 1)
            n = len(examples)
            with torch.no_grad():
                plain = [draw(elbo(examples, left), n, "the ELBO") for _ in range(repeats)]
                bound_1 = [draw(bound_fn(examples, 1, right), n, "L_1") for _ in range(repeats)]
            exactly = all(torch.equal(a, b) for a, b in zip(plain, bound_1, strict=True))
            found.numbers["L_1 is the ELBO"] = "to the bit" if exactly else "in expectation"
            difference, error = _mean_and_error(
                torch.stack([(a - b).mean() for a, b in zip(plain, bound_1, strict=True)])
            )
            found.expect(
                abs(difference) <= Z * error + slack,
                f"L_1 is not the ELBO: the ELBO is off by {difference:+.4f} nats, standard error {error:.4f}",
            )
    return found.result()


def _mean_and_error(values: Tensor) -> tuple[float, float]:
    """Mean of independent repeats and its standard error."""
    return float(values.mean()), float(values.std() / math.sqrt(len(values)))


def log_marginal(
    log_joint: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    *,
    latents: int,
    extent: float = 10.0,
    points: int = 401,
) -> Tensor:
    """log p(x) = log of the integral of p(x, h) over one or two latent variables, (B,) nats, float64.

    The trapezoidal rule on [-extent, extent]^latents, which converges faster than any power for smooth integrands
    that vanish at the ends. The exact reference that `bound` needs, for any decoder with so few latents.

    Args:
        log_joint: (x (B, ...), h (M, latents)) -> log p(x, h), (M, B).
        x: (B, ...) examples.
        extent: half the width of the box; the prior's bulk must lie well inside.
        points: odd number of points per dimension.

    Raises:
        ConfigError: more than two latents, or half the points give another answer (by more than 1e-6 nats and
            rounding): the integrand is too narrow for the grid or reaches beyond the box.
    """
    if latents not in (1, 2):
        raise ConfigError(f"latents = {latents}: quadrature is for one or two latent variables.")
    if points % 2 == 0 or points < 3:
        raise ConfigError(f"points = {points}: an odd number of points is needed, so that every other one is a grid.")
    axis = torch.linspace(-extent, extent, points, dtype=x.dtype if x.dtype.is_floating_point else None)
    axis = axis.to(x.device)
    grid = torch.cartesian_prod(*[axis] * latents).view(-1, latents)
    with torch.no_grad():
        joint = torch.cat([log_joint(x, h) for h in torch.split(grid, 4096)])
    values = joint.double().view(*[points] * latents, len(x))
    fine = _log_trapezoid(values, 2 * extent / (points - 1))
    every_other = values[(slice(None, None, 2),) * latents]
    coarse = _log_trapezoid(every_other, 4 * extent / (points - 1))
    difference = float((fine - coarse).abs().max())
    if not difference <= max(1e-6, rounding(joint.dtype, float(fine.abs().max()))):
        raise ConfigError(
            f"the quadrature of log p(x) has not converged: half the points give {difference:.1e} nats of difference. "
            f"Use more than {points} points, or another extent than {extent}."
        )
    return fine


def _log_trapezoid(log_values: Tensor, step: float) -> Tensor:
    """log of the trapezoidal rule over all dimensions but the last."""
    for _ in range(log_values.dim() - 1):
        ends = torch.zeros(len(log_values), dtype=log_values.dtype, device=log_values.device)
        ends[[0, -1]] = -math.log(2)
        ends = ends.view(-1, *(1,) * (log_values.dim() - 1))
        log_values = torch.logsumexp(log_values + ends, 0) + math.log(step)
    return log_values


def normalisation(
    log_prob: LogProb,
    *,
    shape: tuple[int, ...],
    levels: int,
    reference: LogProb | None = None,
    dtype: torch.dtype = torch.float64,
    limit: int = 2**20,
) -> ProbeResult:
    """The probabilities of all states of a tiny discrete space sum to 1.

    All levels^D states of `shape`, D = prod(shape), are scored; none may have a probability above 1, and the sum must
    be 1. A valid distribution need not be the intended one: with `reference` (exact log-probabilities from another
    formula) every state is compared, which finds, for instance, a tanh in place of the normal CDF.
    Tolerance: rounding of the type that log_prob returns (float64: 1e-10, float32: 1e-4 for the sum); use float64
    (`model.double()`). Cost: levels^D evaluations in batches of 4096; 2x2 pixels with 3 levels are 81.

    Args:
        log_prob: x (B, *shape) with values 0 .. levels-1 in `dtype` -> (B,) nats. A model of preprocessed values is
            wrapped: `lambda codes: model.log_prob(scale(codes))`.
        shape: of one example, without the batch.
        levels: number of values of one dimension.
        reference: the same from another formula, optional.
        dtype: what x is passed as.

    Raises:
        ConfigError: there are more than `limit` states.
    """
    dims = math.prod(shape)
    if levels < 1 or dims < 1 or levels**dims > limit:
        raise ConfigError(f"{levels}^{dims} states cannot be summed over (1 to {limit}); use a tinier space.")
    states = levels**dims
    with Findings("normalisation", "the probabilities of all states sum to 1") as found:
        found.numbers["states"] = states
        place = levels ** torch.arange(dims - 1, -1, -1)
        parts, exact, precision = [], [], torch.float64
        for start in range(0, states, 4096):
            index = torch.arange(start, min(start + 4096, states))
            codes = (index[:, None] // place % levels).view(-1, *shape).to(dtype)
            with torch.no_grad():
                value = log_prob(codes.clone())
                if isinstance(value, Tensor) and value.dtype.is_floating_point and value.dtype != torch.float64:
                    precision = value.dtype
                parts.append(found.per_example(value, len(index), "log_prob"))
                if reference is not None:
                    exact.append(found.per_example(reference(codes.clone()), len(index), "reference"))
        values = torch.cat(parts)
        total = float(values.logsumexp(0).exp())
        # A sum of many probabilities, each with a relative error of |log p| roundings.
        size = float(values[values > -math.inf].abs().max()) if bool((values > -math.inf).any()) else 1.0
        tolerance = max(1e-10, rounding(precision, size))
        found.numbers["sum"] = total
        found.expect(abs(total - 1) <= tolerance, f"the probabilities sum to {total:.8g}, not 1")
        highest = float(values.max())
        found.expect(
            highest <= tolerance,
            f"a state has probability {math.exp(min(highest, 700)):.4g}: that is not a mass",
        )
        if reference is not None:
            known = torch.cat(exact)
            error = torch.where(values == known, 0.0, (values - known).abs())  # equal infinities are equal
            worst = int(error.argmax())
            found.numbers["max_error"] = float(error.max())
            found.expect(
                bool(error.max() <= max(1e-8, rounding(precision, float(size)))),
                f"state {worst} has log-probability {float(values[worst]):.6g}, not {float(known[worst]):.6g}",
            )
    return found.result()


def density(
    log_prob: LogProb,
    *,
    dims: int,
    extent: float | tuple[float, float],
    points: int | None = None,
    tolerance: float = 1e-3,
    dtype: torch.dtype = torch.float64,
) -> ProbeResult:
    """A density on one or two dimensions integrates to 1.

    The trapezoidal rule on a box. Its own error is taken from the same rule on every other point, E = |I_h - I_2h|:
    the integral must be 1 within max(tolerance, E), and E itself must be below 0.02, else the grid is too coarse to
    say anything and the probe fails as inconclusive. A missing or doubled term of a log-determinant changes the
    integral by tens of per cent. Cost: `points`^dims evaluations: 4001 in 1-D, 401^2 = 160,801 in 2-D.

    Args:
        log_prob: x (B, dims) -> (B,) nats.
        dims: 1 or 2.
        extent: the box [-extent, extent]^dims, or (low, high); must hold all of the density but 1e-4 or so.
        points: odd number of points per dimension.

    Raises:
        ConfigError: dims is neither 1 nor 2, or the box or the number of points cannot be.
    """
    low, high = extent if isinstance(extent, tuple) else (-extent, extent)
    points = points or (4001 if dims == 1 else 401)
    if dims not in (1, 2):
        raise ConfigError(f"dims = {dims}: quadrature is for one or two dimensions.")
    if not low < high or points < 5 or points % 2 == 0:
        raise ConfigError(f"a box [{low}, {high}] with {points} points cannot be: an odd number >= 5 is needed.")
    with Findings("normalisation", "the density integrates to 1") as found:
        axis = torch.linspace(low, high, points, dtype=dtype)
        grid = torch.cartesian_prod(*[axis] * dims).view(-1, dims)
        with torch.no_grad():
            parts = [found.per_example(log_prob(x.clone()), len(x), "log_prob") for x in torch.split(grid, 16384)]
        values = torch.cat(parts).view(*[points] * dims, 1)
        if bool(values.isnan().any()):
            raise found.broken("log_prob is NaN at some points of the grid")
        step = (high - low) / (points - 1)
        fine = float(_log_trapezoid(values, step).exp())
        coarse = float(_log_trapezoid(values[(slice(None, None, 2),) * dims], 2 * step).exp())
        error = abs(fine - coarse)
        found.numbers |= {"integral": fine, "grid_error": error}
        found.expect(
            error <= 0.02,
            f"inconclusive: half the points give {coarse:.4f}; use more than {points} points",
        )
        found.expect(
            abs(fine - 1) <= max(tolerance, error),
            f"the density integrates to {fine:.5f} on the box, not 1",
        )
    return found.result()


def impossible(
    log_prob: LogProb,
    x: Tensor,
    *,
    entropy: float,
    true_log_prob: LogProb | None = None,
) -> ProbeResult:
    """On data from a known density, mean log p never exceeds minus its entropy by more than its error.

    For fresh x ~ p and any normalised model q:  E log q(x) <= E log p(x) = -entropy  (Gibbs). Two tests:
      - mean log q(x) <= -entropy + 4 standard errors, each the spread of log q over sqrt(n). A perfect model crosses
        3 errors once in 740 samples, 4 errors once in 30,000;
      - with `true_log_prob`, sum over x of log q(x)/p(x) <= log(10^6). As E q(x)/p(x) <= 1 for one x, the product
        over n of them exceeds 10^6 with probability below 10^-6 (Markov), whatever q and p are. It is far sharper
        than the first, for the noise of log p cancels: with n = 2000, a gain of 0.007 nats per example is impossible.
    The likelihood of q is too high only if q is not normalised, or if x was seen in training.
    Cost: one evaluation of x.

    Args:
        log_prob: the trained model, x (B, ...) -> (B,) nats.
        x: (n, ...) independent draws from the known density that training did not see; n >= 1000.
        entropy: of the known density, nats.
        true_log_prob: log p of the known density, optional.

    Raises:
        ConfigError: fewer than 1000 draws, or x is not from that density: its own mean log p is not -entropy.
    """
    n = len(x)
    if n < 1000:
        raise ConfigError(f"{n} draws are too few for a standard error to be trusted; use 1000 or more.")
    with Findings("likelihood", "mean log p of a known density never exceeds -entropy") as found:
        before = x.clone()
        with torch.no_grad():
            values = found.per_example(log_prob(x), n, "log_prob")
        found.unchanged(before, x, "log_prob")
        mean, error = _mean_and_error(values)
        found.numbers |= {"mean_log_p": mean, "minus_entropy": -entropy, "stderr": error, "n": n}
        slack = 1e-6 * max(1.0, abs(entropy))
        found.expect(
            mean <= -entropy + 4 * error + slack,
            f"mean log p = {mean:.4f} is above what is possible, {-entropy:.4f}, by {mean + entropy:.4f} nats, "
            f"standard error {error:.4f}",
        )
        if true_log_prob is not None:
            with torch.no_grad():
                truth = found.per_example(true_log_prob(before), n, "true_log_prob")
            true_mean, true_error = _mean_and_error(truth)
            if not abs(true_mean + entropy) <= Z * true_error + slack:
                raise ConfigError(
                    f"x is not from the known density: mean log p is {true_mean:.4f}, minus the entropy {-entropy:.4f} "
                    f"(standard error {true_error:.4f})."
                )
            gain = float((values - truth).sum())
            found.numbers["gain_per_example"] = gain / n
            found.expect(
                gain <= math.log(1e6) + n * slack,
                f"the model gives these {n} draws e^{gain:.1f} times their true likelihood; "
                "a normalised model that has not seen them reaches e^13.8 once in a million",
            )
    return found.result()
