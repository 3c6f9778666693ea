"""The metrics by name: what each one says, and all that were asked for of one set of samples.

>>> OF_SAMPLES["kid"].direction
'lower'

The names and what they mean can be read without torch; `evaluate` imports what it computes with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from common.errors import ConfigError, nearest

if TYPE_CHECKING:
    from common.evaluation.bank import Bank
    from common.records import Score


class Meaning(NamedTuple):
    """What a score of some name is."""

    unit: str
    direction: Literal["lower", "higher"]  # which way is better
    what: str


OF_SAMPLES: dict[str, Meaning] = {
    "fd": Meaning("squared units", "lower", "Fréchet distance of samples from the data"),
    "fd_infinity": Meaning("squared units", "lower", "Fréchet distance, extrapolated to endless samples"),
    "kid": Meaning(
        "MMD²",
        "lower",
        "kernel distance of samples from the data, cubic kernel, without bias: where there is none, often below 0",
    ),
    "mmd": Meaning("MMD²", "lower", "kernel distance of samples from the data, Gaussian kernel, without bias"),
    "class_score": Meaning(
        "classes", "higher", "exp of the information between sample and class, 1 to the number of classes"
    ),
    "precision": Meaning("share", "higher", "samples that lie within the data's k-nearest-neighbour balls"),
    "recall": Meaning("share", "higher", "data that lie within the samples' k-nearest-neighbour balls"),
    "density": Meaning(
        "balls over k", "higher", "how many of the data's balls a sample lies in, of those expected; 1 for the data"
    ),
    "coverage": Meaning("share", "higher", "data whose k-nearest-neighbour ball holds a sample"),
    "sliced_wasserstein": Meaning("distance", "lower", "Wasserstein distance along random directions, their mean"),
    "c2st": Meaning(
        "share", "lower", "held-out accuracy of a classifier of samples and data; 0.5 cannot tell them apart"
    ),
    "c2st_p": Meaning("probability", "higher", "of such an accuracy or a better one, if samples were data"),
    "copying": Meaning(
        "standard errors",
        "higher",
        "z of samples' distances to training examples; far below 0: copies, far above: noise",
    ),
    "copies": Meaning(
        "share", "lower", "samples nearer to a training example than 99 % of held-out examples; 0.01 by chance"
    ),
}
"""Metrics of samples, by the name that stands before the network's: "kid[lenet-mnist@a24bccc1]"."""

OTHERS: dict[str, Meaning] = {
    "perplexity": Meaning("perplexity", "lower", "exp of the negative log-likelihood of a token"),
    "bits_per_char": Meaning("bits/char", "lower", "negative log2-likelihood of a character"),
    "bleu": Meaning("points", "higher", "n-gram overlap of translations with references, 0 to 100 (sacreBLEU)"),
    "chrf": Meaning("points", "higher", "character n-gram F-score against references, 0 to 100 (sacreBLEU)"),
    "psnr": Meaning("dB", "higher", "peak signal to noise ratio of an image, the mean over images"),
    "ssim": Meaning("index", "higher", "structural similarity of an image with its reference, the mean over images"),
    "lpips": Meaning("distance", "lower", "distance of an image from its reference in a network's features"),
    "snr": Meaning("dB", "higher", "signal to noise ratio of a recording"),
    "si_snr": Meaning("dB", "higher", "signal to noise ratio of a recording, whatever its loudness"),
    "lsd": Meaning("dB", "lower", "log-spectral distance of a recording from its reference"),
}
"""Metrics that no feature network decides."""

NEAR = {"density": "near 1", "copying": "near 0", "copies": "near 0.01"}
"""Metrics that are best at what samples of the data's own distribution would have, and worse on either side: noise has
a high z of copying, and outliers of the data raise density above 1. For orderings their direction stands all the same.
"""


def better(name: str) -> str:
    """Which value of a metric is better, in words: "lower", "higher", "near 0"."""
    return NEAR.get(name) or OF_SAMPLES[name].direction


DEFAULT = ("fd", "kid", "precision", "recall", "density", "coverage")
"""What is computed when nothing is said."""


@dataclass(frozen=True)
class Job:
    """What a metric is given: features of both sides, and what goes into its protocol."""

    samples: Bank
    reference: Bank
    train: Bank | None = None  # the training examples' features, for what looks for copies of them
    classes: Bank | None = None  # the samples' log-probabilities under a classifier, for what looks at classes
    seed: int = 0
    protocol: str = ""  # what else decides the values: the data set, how the samples were read
    weights: Literal["raw", "ema"] = "raw"
    progress: str = ""  # label of a progress bar; none when empty

    def how(self) -> dict[str, Any]:
        """Keywords that every score takes; with a generator of its own, so that none depends on what else is asked."""
        import torch

        generator = torch.Generator().manual_seed(self.seed)
        return {"generator": generator, "protocol": self.protocol, "weights": self.weights, "progress": self.progress}


@dataclass(frozen=True)
class Group:
    """Metrics that are computed together.

    least: (d) -> the samples, and the examples of the data, that it takes at least.
    """

    names: tuple[str, ...]
    least: Callable[[int], tuple[int, int]]
    compute: Callable[[Job], list[Score]]


def _fd(job: Job) -> list[Score]:
    from common.evaluation.frechet_bias import fd_score

    return [fd_score(job.samples, job.reference, **job.how())]


def _fd_infinity(job: Job) -> list[Score]:
    from common.evaluation.frechet_bias import fd_infinity_score

    return [fd_infinity_score(job.samples, job.reference, **job.how())]


def _kid(job: Job) -> list[Score]:
    from common.evaluation.kernels import kid_score

    return [kid_score(job.samples, job.reference, **job.how())]


def _mmd(job: Job) -> list[Score]:
    from common.evaluation.kernels import mmd_score

    return [mmd_score(job.samples, job.reference, **job.how())]


def _manifold(job: Job) -> list[Score]:
    from common.evaluation.manifold import manifold_scores

    return manifold_scores(job.samples, job.reference, **job.how())


def _sliced(job: Job) -> list[Score]:
    from common.evaluation.sliced import sliced_wasserstein_score

    return [sliced_wasserstein_score(job.samples, job.reference, **job.how())]


def _c2st(job: Job) -> list[Score]:
    from common.evaluation.two_sample import c2st_scores

    return c2st_scores(job.samples, job.reference, **job.how())


def _class_score(job: Job) -> list[Score]:
    from common.evaluation.class_score import class_score

    assert job.classes is not None
    return [class_score(job.classes, **job.how())]


def _copying(job: Job) -> list[Score]:
    from common.evaluation.memorisation import copying_scores

    assert job.train is not None
    return copying_scores(job.samples, job.train, job.reference, **job.how())


GROUPS = (
    Group(("fd",), lambda d: (d + 1, d + 1), _fd),
    Group(("fd_infinity",), lambda d: (max(4 * d, 100), d + 1), _fd_infinity),
    Group(("kid",), lambda d: (4, 4), _kid),
    Group(("mmd",), lambda d: (4, 4), _mmd),
    Group(("precision", "recall", "density", "coverage"), lambda d: (12, 12), _manifold),
    Group(("sliced_wasserstein",), lambda d: (2, 2), _sliced),
    Group(("class_score",), lambda d: (2, 0), _class_score),
    Group(("c2st", "c2st_p"), lambda d: (10, 10), _c2st),
    Group(("copying", "copies"), lambda d: (1, 99), _copying),
)


def group_of(name: str) -> Group:
    """The group that a metric is computed with.

    Raises:
        ConfigError: there is no such metric; the message names the nearest.
    """
    for group in GROUPS:
        if name in group.names:
            return group
    names = [known for group in GROUPS for known in group.names]
    raise ConfigError(f"there is no metric '{name}'.{nearest(name, names)} There are: {', '.join(names)}.")


def least(name: str, dims: int) -> tuple[int, int]:
    """The samples, and the examples of the data, that a metric takes at least in features of so many dimensions."""
    return group_of(name).least(dims)


def wants_train(names: Iterable[str]) -> bool:
    """Whether one of the metrics looks at training examples."""
    return any(name in ("copying", "copies") for name in names)


def wants_classes(names: Iterable[str]) -> bool:
    """Whether one of the metrics looks at what a classifier says."""
    return "class_score" in names


def wants_reference(names: Iterable[str]) -> bool:
    """Whether one of the metrics compares samples with data."""
    return any(name != "class_score" for name in names)


def measure(names: Sequence[str], job: Job, *, progress: bool = False) -> list[Score]:
    """The scores of these names, in this order, each computed once.

    Raises:
        ConfigError: an unknown name.
        DataError: features that do not compare, or too few of them.
    """
    asked = [group_of(name) for name in names]
    found: dict[str, Score] = {}
    groups = list(dict.fromkeys(asked))
    for place, group in enumerate(groups, start=1):
        label = f"[{place}/{len(groups)}] {', '.join(n for n in names if n in group.names)}" if progress else ""
        for score in group.compute(replace(job, progress=label)):
            found[score.name.partition("[")[0]] = score
    return [found[name] for name in names]
