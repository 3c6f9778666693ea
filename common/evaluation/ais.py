"""Annealed importance sampling: how likely a decoder finds an example, when no encoder can be trusted to say.

A decoder is a prior p(z) and a likelihood p(x|z). From the prior to the posterior leads a path of distributions (Neal
2001; Wu et al. 2017, section 2)

    f_t(z) = p(z) p(x|z)^beta_t,   0 = beta_0 < beta_1 < ... < beta_T = 1,

along which a chain is moved, z_0 ~ p(z) and then z_t from z_{t-1} by a transition that leaves f_t as it is. Its weight

    log w = sum_{t=1}^{T} (beta_t - beta_{t-1}) log p(x|z_{t-1})

is an unbiased estimate of the likelihood, E[w] = p(x), whatever T and however badly the chain mixes. So log of the mean
weight of C chains is below log p(x) in expectation (Jensen), and above it by b nats with a probability of at most e^-b
(Markov): a stochastic lower bound, whose gap T, C and the transitions decide.

On data that the model itself has simulated the gap can be seen (bidirectional Monte Carlo, Grosse, Ghahramani & Adams
2015): the z that made x is an exact draw from p(z|x), a chain run from it back to the prior has E[1/w] = 1/p(x), and
so -log of the mean of 1/w is above log p(x) in expectation. Truth lies between the two, on simulated data.

Transitions are Hamiltonian Monte Carlo. Step sizes are chosen for each example and each temperature in a run of their
own, aiming at an acceptance of 0.65, and then stay as they are: a chain that adapted them as it went would not leave
f_t as it is, and E[w] = p(x) would no longer hold. Every example has random numbers of its own, drawn from a seed that
is a digest of its content, so that neither the batch it is in nor its place in the set matters: the estimates are the
same but for rounding, which in float32 may now and then decide an acceptance the other way.

Legend: x (B, ...) examples, z (C, B, D) latent variables of C chains, beta (T + 1,), log w (C, N).
"""

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from common.distributions import standard_normal_log_prob
from common.errors import ConfigError, DataError
from common.evaluation.likelihood import log_mean_exp, mean_score
from common.records import Score

ACCEPTANCE = 0.65
"""What the step sizes aim at, as in Wu et al. 2017; Neal (2011, section 5.4.4) finds it best in many dimensions."""

PILOT_CHAINS = 4  # that choose the step sizes
PILOT_MOVES = 20  # of them at the first temperature, until its step size is found
GAIN = 0.2  # log step size a transition, for an acceptance that is off by 1
DRAWN_AT_ONCE = 32  # transitions whose random numbers are drawn together

Spacing = Literal["sigmoid", "linear"]


def _normal(n: int, latents: int, generator: torch.Generator) -> Tensor:
    return torch.randn((n, latents), generator=generator, device=generator.device)


@dataclass(frozen=True)
class Decoder:
    """A model with latent variables z (D,), as annealing needs it. Everything is in nats.

    Any prior that is a map of normal noise (a hierarchy of layers, say) can be had by giving the noise as z and the map
    to `log_likelihood`; otherwise `log_prior` and `sample_prior` are given.

    Attributes:
        latents: D.
        log_likelihood: (x (B, ...), z (C, B, D)) -> log p(x|z), (C, B); differentiable in z. A function of each x and
            its z alone: nothing like batch normalisation over B.
        simulate: (z (N, D), generator) -> x (N, ...) from p(x|z); for `bdmc` only.
        log_prior: z (..., D) -> log p(z), (...); standard normal unless given.
        sample_prior: (n, D, generator) -> n draws (n, D) from the same.
    """

    latents: int
    log_likelihood: Callable[[Tensor, Tensor], Tensor]
    simulate: Callable[[Tensor, torch.Generator], Tensor] | None = None
    log_prior: Callable[[Tensor], Tensor] = standard_normal_log_prob
    sample_prior: Callable[[int, int, torch.Generator], Tensor] = _normal


@dataclass(frozen=True)
class Annealed:
    """What annealing found, for N examples and C chains each; float64, on the CPU.

    Attributes:
        log_w: (C, N) log weights.
        acceptance: (N,) mean probability of acceptance, over chains and temperatures.
        step_size: (T - 1, N) of the leapfrog steps.
        how: the settings in words, for protocols.
        reverse: whether the chains ran from the posterior to the prior.
    """

    log_w: Tensor
    acceptance: Tensor
    step_size: Tensor
    how: str = "AIS"
    reverse: bool = False

    @property
    def log_p(self) -> Tensor:
        """(N,) nats: log of the mean weight, or from reversed chains -log of the mean of 1/w."""
        return -log_mean_exp(-self.log_w, 0) if self.reverse else log_mean_exp(self.log_w, 0)

    @property
    def stderr(self) -> Tensor:
        """(N,) nats: standard error of `log_p` over the chains, to first order (std of w over mean of w, by sqrt C).

        Of forward chains only is it the whole error: reversed ones begin at the same z. It is itself estimated from C
        weights, too small when the one that matters has not been drawn, and NaN for a single chain.
        """
        log_w = -self.log_w if self.reverse else self.log_w
        share = torch.softmax(log_w, 0) * len(log_w)  # w over mean of w
        return share.std(0, unbiased=True) / math.sqrt(len(log_w))

    @property
    def effective(self) -> Tensor:
        """(N,) effective number of chains, 1 to C: (sum of w)^2 over sum of w^2."""
        return 1 / torch.softmax(-self.log_w if self.reverse else self.log_w, 0).square().sum(0)


def temperatures_of(count: int, spacing: Spacing = "sigmoid", radius: float = 4.0) -> Tensor:
    """beta_0 = 0 to beta_T = 1, (T + 1,) float64.

    "sigmoid" is that of Wu et al. 2017: equidistant points of [-radius, radius] through a sigmoid, scaled to end at 0
    and 1, so that temperatures lie densest at both ends. "linear" is equidistant.

    Args:
        count: T, the number of increments of the log weight; T - 1 transitions lie between them. T = 1 is simple
            importance sampling from the prior.

    Raises:
        ConfigError: T < 1, or a spacing that there is not.
    """
    if count < 1:
        raise ConfigError(f"temperatures = {count}: annealing takes at least one step from the prior (>= 1).")
    if spacing == "linear":
        return torch.linspace(0, 1, count + 1, dtype=torch.float64)
    if spacing != "sigmoid":
        raise ConfigError(f"spacing = '{spacing}': temperatures are spaced 'sigmoid' or 'linear'.")
    s = torch.linspace(-radius, radius, count + 1, dtype=torch.float64).sigmoid()
    beta = (s - s[0]) / (s[-1] - s[0])
    beta[0], beta[-1] = 0, 1  # to the bit
    return beta


class _State(NamedTuple):
    """A point of every chain with the gradients there, with which the next transition begins."""

    z: Tensor  # (C, B, D)
    log_prior: Tensor  # (C, B)
    log_lik: Tensor
    prior_slope: Tensor  # (C, B, D)
    lik_slope: Tensor

    def log_f(self, beta: Tensor | float) -> Tensor:
        """log f_t, (C, B)."""
        return self.log_prior + beta * self.log_lik

    def slope(self, beta: Tensor | float) -> Tensor:
        """d log f_t / dz, (C, B, D)."""
        return self.prior_slope + beta * self.lik_slope


def _at(decoder: Decoder, x: Tensor, z: Tensor) -> _State:
    """The state at z. Chains do not meet, so the gradient of the sum holds each chain's own."""
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        log_prior, log_lik = decoder.log_prior(z), decoder.log_likelihood(x, z)
        for what, found in (("log_prior", log_prior), ("log_likelihood", log_lik)):
            if found.shape != z.shape[:2]:
                raise ConfigError(
                    f"{what} gives {tuple(found.shape)} for z of {tuple(z.shape)}: one value a chain and example, "
                    f"{tuple(z.shape[:2])}, is expected."
                )
        (prior_slope,) = torch.autograd.grad(log_prior.sum(), z)
        (lik_slope,) = torch.autograd.grad(log_lik.sum(), z)
    return _State(z.detach(), log_prior.detach().double(), log_lik.detach().double(), prior_slope, lik_slope)


def hamiltonian_transition(
    decoder: Decoder,
    x: Tensor,
    state: _State,
    beta: Tensor | float,
    step_size: Tensor,
    momentum: Tensor,
    uniform: Tensor,
    leapfrog: int,
) -> tuple[_State, Tensor]:
    """One transition of Hamiltonian Monte Carlo that leaves f_t = p(z) p(x|z)^beta as it is (Neal 2011, section 5.3).

    A trajectory that ends where f_t is not a number, or that has run away, is rejected.

    Args:
        step_size: (B,) of each example.
        momentum: (C, B, D) standard normal.
        uniform: (C, B) uniform on [0, 1).
        leapfrog: steps of the trajectory; so many gradients are taken.

    Returns:
        the state, and the probability with which the proposal was accepted, (C, B).
    """
    eps = step_size[:, None].to(momentum.dtype)
    p = momentum + 0.5 * eps * state.slope(beta)
    proposal = state
    for i in range(leapfrog):
        proposal = _at(decoder, x, proposal.z + eps * p)
        p = p + (eps if i < leapfrog - 1 else 0.5 * eps) * proposal.slope(beta)
    kinetic = 0.5 * (momentum.double().square().sum(-1) - p.double().square().sum(-1))
    log_ratio = proposal.log_f(beta) - state.log_f(beta) + kinetic
    probability = torch.nan_to_num(log_ratio, nan=-math.inf).clamp(max=0).exp()
    accepted = uniform < probability
    chosen = (
        torch.where(accepted[(...,) + (None,) * (a.ndim - 2)], a, b) for a, b in zip(proposal, state, strict=True)
    )
    return _State(*chosen), probability


class _Noise:
    """Random numbers of a batch, each example's from a generator of its own."""

    def __init__(self, decoder: Decoder, x: Tensor, base: int, device: torch.device) -> None:
        self.decoder, self.like = decoder, x
        self.generators = []
        for example in x.detach().cpu().contiguous():
            digest = hashlib.sha256(f"{base} {example.dtype} {tuple(example.shape)}".encode())
            digest.update(example.reshape(-1).view(torch.uint8).numpy().data)
            seed = int.from_bytes(digest.digest()[:8], "big") >> 1
            self.generators.append(torch.Generator(device).manual_seed(seed))

    def prior(self, chains: int) -> Tensor:
        """(C, B, D) draws from the prior."""
        drawn = [self.decoder.sample_prior(chains, self.decoder.latents, g) for g in self.generators]
        return self._to(torch.stack(drawn, 1))

    def transitions(self, count: int, chains: int) -> tuple[Tensor, Tensor]:
        """Momenta (count, C, B, D) and uniforms (count, C, B)."""
        shape = (count, chains, self.decoder.latents)
        momenta = [torch.randn(shape, generator=g, device=g.device) for g in self.generators]
        # in float64, which has no zero among so few: a float32 is 0, and accepts anything, once in 17 million times
        uniforms = [torch.rand(shape[:2], generator=g, device=g.device, dtype=torch.float64) for g in self.generators]
        return self._to(torch.stack(momenta, 2)), torch.stack(uniforms, 2).to(self.like.device)

    def _to(self, drawn: Tensor) -> Tensor:
        return drawn.to(self.like.device, self.like.dtype)


def _moves(noise: _Noise, chains: int, count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Momentum and uniform of each of `count` transitions, drawn some at a time."""
    for start in range(0, count, DRAWN_AT_ONCE):
        momenta, uniforms = noise.transitions(min(DRAWN_AT_ONCE, count - start), chains)
        yield from zip(momenta, uniforms, strict=True)


@dataclass(frozen=True)
class _Path:
    """A batch on its way: what the pilot, the forward and the reversed chains share."""

    decoder: Decoder
    x: Tensor  # (B, ...)
    beta: list[float]  # T + 1
    leapfrog: int
    noise: _Noise
    bar: tqdm

    def move(
        self, state: _State, t: int, step_size: Tensor, momentum: Tensor, uniform: Tensor
    ) -> tuple[_State, Tensor]:
        self.bar.update()
        return hamiltonian_transition(
            self.decoder, self.x, state, self.beta[t], step_size, momentum, uniform, self.leapfrog
        )

    def from_prior(self, chains: int) -> _State:
        state = _at(self.decoder, self.x, self.noise.prior(chains))
        if bad := int((state.log_lik.isnan() | (state.log_lik == math.inf)).any(0).sum()):
            raise DataError(
                f"log p(x|z) is not a number at draws from the prior, for {bad} of {len(self.x)} examples: look at "
                "the decoder's output, and whether the examples are preprocessed as in training."
            )
        return state

    def pilot(self) -> Tensor:
        """Step sizes for beta_1 ... beta_{T-1}, (T - 1, B): those that chains of their own have adapted."""
        between = len(self.beta) - 2
        at_each = pilot_moves(between)
        state = self.from_prior(PILOT_CHAINS)
        log_eps = torch.full((len(self.x),), -1.0, dtype=torch.float64, device=self.x.device)
        found = torch.empty(between, len(self.x), dtype=torch.float64, device=self.x.device)
        when = [1] * PILOT_MOVES + [t for t in range(1, between + 1) for _ in range(at_each)]
        for i, (t, (momentum, uniform)) in enumerate(
            zip(when, _moves(self.noise, PILOT_CHAINS, len(when)), strict=True)
        ):
            state, probability = self.move(state, t, log_eps.exp(), momentum, uniform)
            log_eps = log_eps + max(GAIN, 2 / (i + 1)) * (probability.mean(0) - ACCEPTANCE)
            found[t - 1] = log_eps.exp()
        return found

    def weigh(self, state: _State, step_size: Tensor, reverse: bool) -> tuple[Tensor, Tensor]:
        """Run chains along the path: their log weights (C, B), and the mean acceptance (B,)."""
        count, chains = len(self.beta) - 1, len(state.z)
        log_w = torch.zeros_like(state.log_lik)
        acceptance = torch.zeros_like(log_w[0])
        moves = iter(_moves(self.noise, chains, count - 1))
        for t in range(count, 0, -1) if reverse else range(1, count + 1):
            log_w = log_w + (self.beta[t] - self.beta[t - 1]) * state.log_lik
            after = t - 1 if reverse else t  # the temperature between this increment and the next
            if 0 < after < count:
                state, probability = self.move(state, after, step_size[after - 1], *next(moves))
                acceptance = acceptance + probability.mean(0) / (count - 1)
        return log_w, acceptance


def pilot_moves(between: int) -> int:
    """Transitions of the pilot at each of `between` temperatures: 100 in all at least, so that few are not too few."""
    return max(1, -(-100 // between)) if between else 0


def _anneal(
    decoder: Decoder,
    x: Tensor,
    z: Tensor | None,
    *,
    chains: int,
    temperatures: int,
    leapfrog: int,
    spacing: Spacing,
    generator: torch.Generator,
    batch_size: int,
    progress: str,
) -> list[Annealed]:
    """Forward chains, and with z (N, D), exact draws from p(z|x), reversed ones with the same step sizes."""
    beta = temperatures_of(temperatures, spacing).tolist()
    for what, number in (("chains", chains), ("leapfrog", leapfrog), ("batch_size", batch_size)):
        if number < 1:
            raise ConfigError(f"{what} = {number}: annealing takes at least one (>= 1).")
    if len(x) == 0:
        raise ConfigError("there are no examples to evaluate: the split is empty.")
    if not x.is_floating_point():
        raise DataError(f"x is {x.dtype}: encode examples with the model's preprocessing first.".replace("torch.", ""))
    base = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    between = temperatures - 1
    a_batch = (PILOT_MOVES + between * pilot_moves(between) if between else 0) + between * (1 if z is None else 2)
    found: list[list[tuple[Tensor, Tensor, Tensor]]] = []
    with (
        torch.inference_mode(False),  # gradients with respect to z are needed, wherever this is called from
        tqdm(
            total=a_batch * -(-len(x) // batch_size), desc=progress, unit="move", disable=not progress, mininterval=0.5
        ) as bar,
    ):
        for start in range(0, len(x), batch_size):
            x_b = x[start : start + batch_size].detach().clone()
            path = _Path(decoder, x_b, beta, leapfrog, _Noise(decoder, x_b, base, generator.device), bar)
            step_size = path.pilot() if between else x_b.new_empty(0, len(x_b), dtype=torch.float64)
            starts = [path.from_prior(chains)]
            if z is not None:
                exact = z[start : start + batch_size].to(x_b).clone()
                starts.append(_at(decoder, x_b, exact.expand(chains, *exact.shape)))
            found.append([(*path.weigh(s, step_size, reverse=i == 1), step_size) for i, s in enumerate(starts)])
    plural = ["" if number == 1 else "s" for number in (temperatures, chains, leapfrog)]
    how = (
        f"AIS, {temperatures:,} {spacing} temperature{plural[0]}, {chains} chain{plural[1]}, "
        f"{leapfrog} leapfrog step{plural[2]}"
    )
    results = []
    for i, batches in enumerate(zip(*found, strict=True)):
        log_w, acceptance, steps = (torch.cat(parts, -1).cpu() for parts in zip(*batches, strict=True))
        results.append(Annealed(log_w, acceptance, steps, how, reverse=i == 1))
    return results


def ais_log_likelihood(
    decoder: Decoder,
    x: Tensor,
    *,
    chains: int = 16,
    temperatures: int = 1000,
    leapfrog: int = 10,
    spacing: Spacing = "sigmoid",
    generator: torch.Generator,
    batch_size: int = 100,
    progress: str = "",
) -> Annealed:
    """Estimates of log p(x) by annealed importance sampling from the prior, for each example.

    The cost is chains x temperatures x leapfrog gradients of the decoder an example, and for the step sizes those of
    four chains more. Wu et al. 2017 take 16 chains, 10,000 temperatures and 10 leapfrog steps.

    Args:
        decoder: the model.
        x: (N, ...) examples, preprocessed, floats; z and its gradients have their type, log weights are float64.
        chains: C, independent; one logarithm is taken of the mean of their weights.
        temperatures: T, the steps from the prior to the posterior (`temperatures_of`).
        leapfrog: steps of a trajectory.
        spacing: of the temperatures, "sigmoid" or "linear".
        generator: a single number is drawn from it, the seed that all others depend on. Random numbers are made on
            its device, and those of different kinds of device differ. Equal examples have equal random numbers.
        batch_size: examples that are annealed together; decides speed and memory, not the result.
        progress: label of the progress bar; none when empty.

    Returns:
        `Annealed`: its `log_p` has the estimates, (N,) nats; -inf where all chains found a likelihood of zero.

    Raises:
        ConfigError: a number below 1, no examples, a spacing that there is not, or a decoder that does not give one
            value a chain and example.
        DataError: examples that are not floats, or a likelihood that is not a number.
    """
    (forward,) = _anneal(
        decoder,
        x,
        None,
        chains=chains,
        temperatures=temperatures,
        leapfrog=leapfrog,
        spacing=spacing,
        generator=generator,
        batch_size=batch_size,
        progress=progress,
    )
    return forward


@dataclass(frozen=True)
class Sandwich:
    """Bounds on log p(x) of data that the model simulated: from below in expectation, and from above."""

    x: Tensor  # (N, ...)
    lower: Annealed
    upper: Annealed

    @property
    def gap(self) -> Tensor:
        """(N,) nats, upper less lower; not negative in expectation."""
        return self.upper.log_p - self.lower.log_p


def bdmc(
    decoder: Decoder,
    n: int,
    *,
    chains: int = 16,
    temperatures: int = 1000,
    leapfrog: int = 10,
    spacing: Spacing = "sigmoid",
    generator: torch.Generator,
    batch_size: int = 100,
    progress: str = "",
) -> Sandwich:
    """Bidirectional Monte Carlo on n examples that the decoder simulates (Grosse, Ghahramani & Adams 2015).

    The mean gap bounds, in expectation, the mean error of `ais_log_likelihood` with the same settings on data like the
    model's own. About real data that are unlike them it says as much as the two have in common.

    All reversed chains of an example begin at the z that made it, which is one exact draw from p(z|x): 1/w of each has
    the mean 1/p(x), so their average has, too. Arguments are those of `ais_log_likelihood`.

    Raises:
        ConfigError: as `ais_log_likelihood`, or the decoder cannot simulate.
    """
    if decoder.simulate is None:
        raise ConfigError("the reversed chains need data that the model simulated: give the decoder `simulate`.")
    if n < 1:
        raise ConfigError(f"n = {n}: bidirectional Monte Carlo takes at least one simulated example (>= 1).")
    with torch.no_grad():
        z = decoder.sample_prior(n, decoder.latents, generator)
        x = decoder.simulate(z, generator)
    lower, upper = _anneal(
        decoder,
        x,
        z,
        chains=chains,
        temperatures=temperatures,
        leapfrog=leapfrog,
        spacing=spacing,
        generator=generator,
        batch_size=batch_size,
        progress=progress,
    )
    return Sandwich(x, lower, upper)


def ais_score(
    decoder: Decoder,
    x: Tensor,
    *,
    split: str,
    generator: torch.Generator,
    chains: int = 16,
    temperatures: int = 1000,
    leapfrog: int = 10,
    spacing: Spacing = "sigmoid",
    batch_size: int = 100,
    protocol: str = "",
    weights: str = "raw",
    progress: str = "",
) -> Score:
    """The mean of -log p(x) by annealing, as a `Score` named `nll`.

    Its kind is "bound": the expectation lies above the negative log-likelihood. The standard error is that of the mean
    over examples, which has the chains' own scatter in it; what the bound lacks is not in it, and `bdmc_score` tells.

    Args:
        split: which split x is: "train", "val" or "test".
        protocol: what else decides the value and is the same in all runs that are to be compared, the data above all;
            the settings of the annealing and the number of examples are stated already.
        weights: "raw" or "ema".

    Raises:
        DataError: an example to which every chain gave a likelihood of zero; and as `ais_log_likelihood`.
    """
    found = ais_log_likelihood(
        decoder,
        x,
        chains=chains,
        temperatures=temperatures,
        leapfrog=leapfrog,
        spacing=spacing,
        generator=generator,
        batch_size=batch_size,
        progress=progress,
    )
    if impossible := int((found.log_p == -math.inf).sum()):
        raise DataError(f"{impossible} of {len(x)} examples have a likelihood of zero wherever the chains went.")
    how = f"{found.how}, {len(x):,} examples"
    how = f"{how}; {protocol}" if protocol else how
    return mean_score(-found.log_p, "nll", unit="nats", kind="bound", split=split, protocol=how, weights=weights)


def bdmc_score(found: Sandwich, *, protocol: str = "", weights: str = "raw") -> Score:
    """The mean gap of bidirectional Monte Carlo, as a `Score` named `bdmc_gap`, in nats; lower is better.

    Its kind is "bound": in expectation the gap lies above the error of either side. The standard error is that of the
    mean over simulated examples, and there is no split.
    """
    how = f"{found.lower.how}, {len(found.x):,} simulated examples"
    how = f"{how}; {protocol}" if protocol else how
    return mean_score(found.gap, "bdmc_gap", unit="nats", kind="bound", split="", protocol=how, weights=weights)
