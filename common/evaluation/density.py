"""Scores of density models: log-density where the model lives, bits per dimension of codes, distance from the truth."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from common.data.continuous import Continuous
from common.data.preprocess import bits_per_dim
from common.evaluation.likelihood import mean_score
from common.evaluation.shards import by_batch
from common.records import Kind, Score


def log_probs(model: nn.Module, x: Tensor, device: torch.device, batch_size: int = 500) -> Tensor:
    """`model.log_prob` of many examples in evaluation mode: (N, ...) -> (N,) nats, float64, on the CPU.

    Processes share the work (`common.evaluation.shards`), so all of them have to call it.
    """
    model.eval()
    return by_batch(
        lambda part: model.log_prob(part.to(device)).double().cpu(),  # type: ignore[operator]
        x,
        batch_size=batch_size,
    )


def density_scores(
    model: nn.Module, data: Continuous, device: torch.device, *, val_examples: int | None = None
) -> tuple[list[Score], dict[str, Tensor]]:
    """Scores of `model.log_prob`, (B, *shape) -> (B,) nats, on all test examples and the first `val_examples`
    validation examples (all, if None); and their values by example.

        log_density     in nats, in the model's own space: exact, for one draw of the noise, the same for all models
        bits_per_dim    of the codes of images, an upper bound in expectation over the noise
        kl              in the plane: mean of log p(x) - log q(x), an estimate of KL(p, q); it has to be positive

    Those of validation examples end in `_val`.
    """
    scores: list[Score] = []
    values: dict[str, Tensor] = {}

    def add(name: str, each: Tensor, unit: str, kind: Kind, split: str, protocol: str) -> None:
        values[name] = each
        scores.append(mean_score(each, name, unit=unit, kind=kind, split=split, protocol=protocol))

    for split, end, count in (("test", "", None), ("val", "_val", val_examples)):
        x, ldj = (each[:count] for each in data.split(split))
        log_q = log_probs(model, x, device)
        where = f"{data.name}, {len(x)} {split} examples"
        if data.density is None:
            noise = f"{where}, one draw of the noise"
            add(f"log_density{end}", log_q, "nats", "exact", split, f"logit space, alpha = {data.alpha:g}; {noise}")
            add(f"bits_per_dim{end}", bits_per_dim(log_q + ldj, x[0].numel()), "bits/dim", "bound", split, noise)
        else:
            add(f"log_density{end}", log_q, "nats", "exact", split, f"the plane; {where}")
            add(f"kl{end}", data.density.log_prob(x.double()) - log_q, "nats", "estimate", split, where)
    return scores, values
