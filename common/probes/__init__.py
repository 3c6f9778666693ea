"""Probes: executable checks of the mathematics, for a paper's tiny instance.

A probe takes callables or tiny models, never a project, and returns a `ProbeResult`: a verdict with the numbers behind
it, which a review can cite. A probe that could not have seen the mistake it is for says so: it fails as inconclusive,
or refuses the instance with a `ConfigError`. What the subject itself raises is passed on.

    probe           statement
    bits            uniform codes under the uniform model score log2(levels) bits/dim
    bound           ELBO = L_1 <= L_k <= L_k' <= log p, and L_k is the log-mean of k weights
    normalisation   the probabilities of all states sum to 1
    density         the density integrates to 1, in one or two dimensions
    impossible      mean log p of a known density never exceeds -entropy
    causality       output i depends on the inputs before i in the order, and on no other
    sampler         an ideal denoiser is sampled exactly, at the solver's order; timesteps chain
    schedule        alpha_bar_T is small enough, monotone, float64; eps, x0, v, score, mu convert into each other
    gan             a step of one player leaves the other's gradients None; the gradient penalty is the paper's
    cache           cached sampling equals naive sampling, token for token, same generator
    bijection       inverse(forward(x)) = x, and the log-determinant is the Jacobian's
    quantise        all codes survive decode(encode(.)), and the caller's tensor is unchanged
    invariance      the score does not depend on batch size, order, or a short last batch
    resume          interrupted and resumed = never interrupted, to the bit
"""

from common.probes.cache import cache
from common.probes.causality import causality
from common.probes.gan import gan
from common.probes.likelihood import bits, bound, density, impossible, log_marginal, normalisation
from common.probes.maps import bijection, quantise
from common.probes.procedure import batch_mean, invariance, per_example, resume
from common.probes.result import ProbeResult
from common.probes.sampler import sampler
from common.probes.schedule import schedule

__all__ = [
    "ProbeResult",
    "batch_mean",
    "bijection",
    "bits",
    "bound",
    "cache",
    "causality",
    "density",
    "gan",
    "impossible",
    "invariance",
    "log_marginal",
    "normalisation",
    "per_example",
    "quantise",
    "resume",
    "sampler",
    "schedule",
]
