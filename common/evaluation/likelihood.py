"""Log-likelihoods: exact values, bounds and estimates, always in nats per example unless a name says otherwise."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from tqdm import tqdm

from common.errors import ConfigError
from common.records import Kind, Score

LogWeights = Callable[[Tensor, int, torch.Generator], Tensor]
"""(x (B, ...), k, generator) -> log w = log p(x, h) - log q(h|x) for k samples h ~ q(h|x), shape (k, B)."""


def log_mean_exp(x: Tensor, dim: int) -> Tensor:
    """log of the mean of exp(x) along `dim`, without overflow.

    -inf (a weight of zero) is allowed and counts as zero.
    """
    return torch.logsumexp(x, dim) - math.log(x.shape[dim])


@torch.inference_mode()
def importance_log_likelihood(
    log_weights: LogWeights,
    x: Tensor,
    *,
    k: int,
    generator: torch.Generator,
    samples_at_once: int = 1000,
    progress: str = "",
) -> Tensor:
    """One draw of the k-sample importance-sampling estimate of log p(x), for each example.

        log 1/k sum_i p(x, h_i) / q(h_i|x),   h_i ~ q(h|x)

    Its expectation is L_k, a lower bound on log p(x) that does not decrease with k (Burda et al. 2016, eq. 8 and
    Theorem 1). All k samples enter one logarithm, however they are cut into chunks.

    Args:
        log_weights: the model's log importance weights.
        x: (N, ...) examples, already preprocessed.
        k: samples per example, at least 1.
        samples_at_once: how many samples are decoded together; about a thousand keeps one chunk of activations in a
            processor's cache. It decides speed and memory, and which random numbers are drawn, nothing else.
        progress: label of the progress bar; none when empty.

    Returns:
        (N,) nats, float64, on the CPU.

    Raises:
        ConfigError: k < 1, or there are no examples.
    """
    if k < 1:
        raise ConfigError(f"k = {k}: the bound needs at least one sample per example (k >= 1).")
    if len(x) == 0:
        raise ConfigError("there are no examples to evaluate: the split is empty.")
    samples = min(k, max(1, samples_at_once))
    batch = max(1, samples_at_once // samples)
    result = torch.empty(len(x), dtype=torch.float64)
    with tqdm(total=len(x), desc=progress, unit="ex", disable=not progress, mininterval=0.5) as bar:
        for start in range(0, len(x), batch):
            x_b = x[start : start + batch]
            total = torch.full((len(x_b),), -math.inf, dtype=torch.float64, device=x.device)
            for drawn in range(0, k, samples):
                log_w = log_weights(x_b, min(samples, k - drawn), generator)  # (samples, B)
                total = torch.logaddexp(total, torch.logsumexp(log_w.double(), 0))
            result[start : start + batch] = (total - math.log(k)).cpu()
            bar.update(len(x_b))
    return result


def mean_score(
    values: Tensor, name: str, *, unit: str, kind: Kind, split: str, protocol: str, weights: str = "raw"
) -> Score:
    """The mean over examples as a `Score`, with its standard error s / sqrt(n).

    A mean over all examples at once: batches of unequal size cannot bias it.

    Args:
        values: (n,) one value per example.

    Raises:
        ConfigError: there are no values.
    """
    n = len(values)
    if n == 0:
        raise ConfigError(f"{name}: there are no examples to average over.")
    values = values.double()
    stderr = float(values.std(unbiased=True) / math.sqrt(n)) if n > 1 else None
    return Score(name, float(values.mean()), stderr, n, unit, kind, split, weights, protocol)  # type: ignore[arg-type]
