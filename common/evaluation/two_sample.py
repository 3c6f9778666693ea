"""Classifier two-sample test: can a classifier that is new to both tell samples from data?

Half of the samples and as much of the data train a classifier, and the other halves test it (Lopez-Paz & Oquab 2017,
section 3). Its accuracy is 1/2 when nothing tells the two apart, and 1 when everything does: lower is better. A
classifier that finds nothing is no proof that there is nothing: the value is of the classifier too, and of how much it
had to learn from.

Both sides are made equally large, by leaving out some of the larger at random: what a classifier gains by always
saying the more frequent of 300 and 60 is 5/6, and nothing to do with samples. Features are centred and scaled by mean
and deviation of the training half alone.

The p-value says how often samples of the data's own distribution would be told apart as well. Then the labels of the
2 t held-out examples are exchangeable given what the classifier says of them, so that, of the K it takes for samples,
the number that are ones has the hypergeometric distribution: exact for every n and every classifier. (The paper's
N(1/2, 1/(4 n_te)) for the accuracy is the limit of that where K = t, and otherwise too wide.)
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from common.errors import ConfigError
from common.evaluation.bank import Bank, check_pair
from common.records import Score

Classifier = Literal["logistic", "knn"]
"""Logistic regression, or the vote of the k nearest with k = floor(sqrt(training examples)), as in the paper."""

LEAST = 10
"""Examples on either side, so that there is something to learn from."""


@dataclass(frozen=True)
class TwoSample:
    """What a classifier said of t held-out samples and t held-out examples of the data.

    Args:
        hits: samples that it took for samples.
        false_alarms: examples of the data that it took for samples.
        t: held-out samples, and as many examples of the data.
        trained_on: samples, and as many examples of the data, that it was trained on.
    """

    hits: int
    false_alarms: int
    t: int
    trained_on: int

    @property
    def accuracy(self) -> float:
        """Share of the held-out examples that it took for what they are."""
        return (self.hits + self.t - self.false_alarms) / (2 * self.t)

    @property
    def stderr(self) -> float:
        """Of the accuracy over held-out examples, the classifier as it is: each side's share is binomial."""
        a, b = self.hits / self.t, self.false_alarms / self.t
        return float(((a * (1 - a) + b * (1 - b)) / self.t) ** 0.5 / 2)

    @property
    def p_value(self) -> float:
        """Probability of an accuracy as high or higher, if samples and data are of one distribution."""
        from scipy.stats import hypergeom

        return float(hypergeom.sf(self.hits - 1, 2 * self.t, self.t, self.hits + self.false_alarms))


def c2st(
    samples: Tensor, reference: Tensor, *, generator: torch.Generator, classifier: Classifier = "logistic"
) -> TwoSample:
    """The test on two sets of vectors.

    Args:
        samples: (n, d) float64, finite.
        reference: (m, d) the data. Of the larger set, as many are left out at random as it is larger.
        generator: for what is left out, and for the halves.
        classifier: "logistic" or "knn".

    Raises:
        ConfigError: another classifier, or fewer than two on one side.
    """
    if classifier not in get_args(Classifier):
        raise ConfigError(f"there is no classifier '{classifier}'; there are: {', '.join(get_args(Classifier))}.")
    size = min(len(samples), len(reference))
    if size < 2:
        raise ConfigError(f"{size} examples on one side cannot be halved.")
    t = size // 2
    y, x = (
        side[torch.randperm(len(side), generator=generator, device=generator.device).cpu()[:size]]
        for side in (samples, reference)
    )
    train = torch.cat([y[t:], x[t:]])
    centre, deviation = train.mean(0), train.std(0)
    deviation = torch.where(deviation > 0, deviation, 1.0)
    labels = torch.arange(len(train)) < size - t  # True: a sample
    model = _classifier(classifier, len(train))
    with warnings.catch_warnings():  # one that has not converged is a classifier all the same, and the test is exact
        warnings.filterwarnings("ignore", module="sklearn")
        model.fit(((train - centre) / deviation).numpy(), labels.numpy())
    said = torch.from_numpy(model.predict(((torch.cat([y[:t], x[:t]]) - centre) / deviation).numpy()))
    return TwoSample(int(said[:t].sum()), int(said[t:].sum()), t, size - t)


def _classifier(name: Classifier, n: int) -> Any:
    if name == "knn":
        from sklearn.neighbors import KNeighborsClassifier

        return KNeighborsClassifier(int(n**0.5))
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(max_iter=300)


def c2st_scores(
    samples: Bank,
    reference: Bank,
    *,
    generator: torch.Generator,
    classifier: Classifier = "logistic",
    protocol: str = "",
    weights: str = "raw",
    progress: str = "",
) -> list[Score]:
    """Held-out accuracy and p-value of the test as scores, `c2st[<network>]` and `c2st_p[<network>]`.

    Args:
        generator: for the halves.
        classifier: "logistic" or "knn".
        protocol: what else decides the values; n, m, split, network, classifier and halves are stated already.
        weights: "raw" or "ema": which of the model's weights made the samples.
        progress: accepted as by all metrics; there is nothing to show.

    Raises:
        DataError: banks that do not compare, or with fewer than 10 examples.
        ConfigError: another classifier.
    """
    check_pair(samples, reference, "c2st", LEAST)
    found = c2st(samples.x, reference.x, generator=generator, classifier=classifier)
    how = (
        f"{samples.n:,} samples against {reference.n:,} of {reference.source}, features of "
        f"{samples.network or 'no network'}; {_SAID[classifier]} trained on {found.trained_on:,} of each and tested on "
        f"{found.t:,} of each"
    )

    def score(name: str, value: float, stderr: float | None, unit: str, more: str) -> Score:
        return Score(
            name=f"{name}[{samples.network}]",
            value=value,
            stderr=stderr,
            n=2 * found.t,
            unit=unit,
            kind="exact" if stderr is None else "estimate",
            split=reference.split,
            weights=weights,  # type: ignore[arg-type]
            protocol="; ".join(part for part in (how, more, protocol) if part),
        )

    return [
        score("c2st", found.accuracy, found.stderr, "share", "error binomial, the classifier as it is"),
        score("c2st_p", found.p_value, None, "probability", "hypergeometric, one-sided"),
    ]


_SAID = {"logistic": "logistic regression", "knn": "nearest neighbours (k = floor(sqrt(n)))"}


def c2st_score(
    samples: Bank,
    reference: Bank,
    *,
    generator: torch.Generator,
    classifier: Classifier = "logistic",
    protocol: str = "",
    weights: str = "raw",
    progress: str = "",
) -> Score:
    """The first of `c2st_scores`, the accuracy."""
    return c2st_scores(
        samples, reference, generator=generator, classifier=classifier, protocol=protocol, weights=weights
    )[0]
