"""Memorisation: are samples copies of training examples?

`nearest` (from `common.evaluation.neighbours`) shows for each sample the training example that it is nearest to. Near
is near compared with what, though? With held-out examples: drawn as the training examples were, and never seen. Let L
be the distance to the nearest training example. For samples of the data's own distribution L is distributed as it is
for held-out examples, whatever the training set, the dimension and the features are. Two scores say how far from that
it is. The first is the statistic of Meehan, Chaudhuri & Dasgupta 2020, over the whole space (they also take its mean
over cells); the second counts.

    copying   z of the Mann-Whitney test between the L of samples and of held-out examples. N(0, 1) if there is no
              difference; far below 0: samples are nearer to training examples than new examples are, as copies are;
              far above 0: further away, as bad samples are.
    copies    share of samples whose L is less than that of all but 1 % of held-out examples: some copies among good
              samples show here, when the first score, of all of them, does not move. About 1 % without copying.

A few copies can hide behind many bad samples in the first, and in the second nothing hides them. Both see copies only
in the features' eyes: an image shifted by a pixel or two is far from itself in pixels (Theis et al. 2016, Figure 5).
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from common.errors import ConfigError, DataError
from common.evaluation.bank import Bank, check_pair
from common.evaluation.neighbours import nearest
from common.records import Score

__all__ = ["copies", "copies_score", "copying", "copying_score", "copying_scores", "nearest"]


def copying(samples: Tensor, heldout: Tensor) -> float:
    """z of the Mann-Whitney test between two sets of distances: below 0 if samples have the smaller ones.

    U counts the pairs in which the sample's distance is the larger one, ties by half; of n + m exchangeable distances
    it has the mean n m / 2 and the variance

        n m / 12 ((n + m + 1) - sum_t (t^3 - t) / ((n + m) (n + m - 1)))

    where t is how many are equal at each tie (Mann & Whitney 1947; Lehmann 1975). All being equal, z is 0.

    Args:
        samples: (n,) float64 distances of samples to their nearest training example.
        heldout: (m,) those of held-out examples.
    """
    n, m = len(samples), len(heldout)
    _, place, counts = torch.unique(torch.cat([samples, heldout]), return_inverse=True, return_counts=True)
    t = counts.double()
    ranks = t.cumsum(0) - (t - 1) / 2  # of equal ones the mean of theirs
    above = float(ranks[place[:n]].sum()) - n * (n + 1) / 2
    ties = float((t**3 - t).sum()) / ((n + m) * (n + m - 1))
    variance = n * m / 12 * (n + m + 1 - ties)
    return (above - n * m / 2) / variance**0.5 if variance > 0 else 0.0


def copies(samples: Tensor, heldout: Tensor, share: float = 0.01) -> Tensor:
    """Which samples are nearer to a training example than all but a share of held-out examples.

    The rim is the j-th smallest distance of m held-out examples, j = floor(share (m + 1)): of exchangeable distances a
    new one is below it with probability j / (m + 1) <= share, with ties less.

    Args:
        samples: (n,) float64 distances of samples to their nearest training example.
        heldout: (m,) those of held-out examples.

    Returns: (n,) bool.

    Raises:
        ConfigError: a share that is not between 0 and 1.
        DataError: too few held-out examples for such a share.
    """
    if not 0 < share < 1:
        raise ConfigError(f"share = {share}: a share lies between 0 and 1.")
    j = rank(len(heldout), share)
    if j < 1:
        raise DataError(
            f"copies: {len(heldout):,} held-out examples have no {share:.3g}-quantile: it takes {least(share):,} or "
            "more."
        )
    return samples < heldout.kthvalue(j).values


def rank(m: int, share: float = 0.01) -> int:
    """j of `copies`."""
    return int(share * (m + 1) + 1e-9)  # 0.07 * 100 is 7.000000000000001, and 0.29 * 100 less than 29


def least(share: float = 0.01) -> int:
    """The held-out examples that `copies` takes."""
    return next(m for m in range(int(1 / share) - 1, int(1 / share) + 2) if rank(m, share) >= 1)


def copying_scores(
    samples: Bank,
    train: Bank,
    heldout: Bank,
    *,
    generator: torch.Generator | None = None,
    share: float = 0.01,
    protocol: str = "",
    weights: str = "raw",
    progress: str = "",
) -> list[Score]:
    """`copying[<network>]` and `copies[<network>]`.

    The error of copying is 1, which it has where nothing is copied. That of copies is binomial, the held-out examples
    being as they are.

    Args:
        train: all that the model was trained on.
        heldout: examples drawn as those were, on which it was not: another split.
        generator: accepted as by all metrics; nothing here is random.
        share: of held-out examples, what may be as near as a copy.
        protocol: what else decides the values; how many of what, the network and the share are stated already.
        weights: "raw" or "ema": which of the model's weights made the samples.
        progress: label of progress bars; none when empty.

    Raises:
        DataError: banks that do not compare, training examples named as held out, or too few held-out examples.
        ConfigError: a share that is not between 0 and 1.
    """
    if not 0 < share < 1:
        raise ConfigError(f"share = {share}: a share lies between 0 and 1.")
    check_pair(samples, heldout, "copying", 1)
    of_any_split = copy.copy(train)  # what it is compared with is of another on purpose
    of_any_split.split = ""
    check_pair(of_any_split, heldout, "copying", 1)
    if train.split and train.split == heldout.split:
        raise DataError(
            f"copying: {train.source} and {heldout.source} are both of the split '{train.split}'; what is held out has "
            "to be new to the model: name another split."
        )
    if heldout.n < least(share):
        raise DataError(
            f"copying: {heldout.n:,} examples of {heldout.source} are too few: it takes at least {least(share):,} "
            f"held-out examples to say what is nearer than all but {share:.3g} of them."
        )
    label = f"{progress}: {{}}" if progress else ""
    of_samples, _ = nearest(samples.x, train.x, progress=label.format("samples"))
    of_heldout, _ = nearest(heldout.x, train.x, progress=label.format("held out"))
    copied = copies(of_samples, of_heldout, share).double()
    how = (
        f"{samples.n:,} samples and {heldout.n:,} of {heldout.source}, nearest of {train.n:,} of {train.source}, "
        f"features of {samples.network or 'no network'}"
    )
    expected = rank(heldout.n, share) / (heldout.n + 1)

    def score(name: str, value: float, stderr: float, unit: str, more: str) -> Score:
        return Score(
            name=f"{name}[{samples.network}]",
            value=value,
            stderr=stderr,
            n=samples.n,
            unit=unit,
            kind="estimate",
            split=heldout.split,
            weights=weights,  # type: ignore[arg-type]
            protocol="; ".join(part for part in (how, more, protocol) if part),
        )

    z = copying(of_samples, of_heldout)
    error = float((copied.mean() * (1 - copied.mean()) / samples.n).sqrt())
    return [
        score("copying", z, 1.0, "standard errors", "z of the Mann-Whitney test, N(0, 1) without copying"),
        score(
            "copies",
            float(copied.mean()),
            error,
            "share",
            f"nearer than all but {share:.3g} of the held-out; {expected:.3g} without copying; error binomial",
        ),
    ]


def copying_score(samples: Bank, train: Bank, heldout: Bank, **settings: object) -> Score:
    """The first of `copying_scores`, z."""
    return copying_scores(samples, train, heldout, **settings)[0]  # type: ignore[arg-type]


def copies_score(samples: Bank, train: Bank, heldout: Bank, **settings: object) -> Score:
    """The second of `copying_scores`, the share of copies."""
    return copying_scores(samples, train, heldout, **settings)[1]  # type: ignore[arg-type]
