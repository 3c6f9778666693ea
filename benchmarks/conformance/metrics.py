"""What each metric measures, in a line, and the function that does: what the conformance table has rows for."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """A metric.

    Attributes:
        family: what it is one of; rows of a family are in the module of that name.
        what: what it measures, and which way is better.
        function: the function that works it out, by its full name.
    """

    family: str
    what: str
    function: str


METRICS = {
    "bits_per_dim": Metric(
        "likelihood",
        "Bits that a code of the data takes, an element: a log-likelihood whatever the size; lower is better.",
        "common.data.preprocess.bits_per_dim",
    ),
    "importance_bound": Metric(
        "likelihood",
        "A lower bound on log p(x) from k importance samples, tighter with larger k; higher is better.",
        "common.evaluation.likelihood.importance_log_likelihood",
    ),
    "fd": Metric(
        "sample distance",
        "Fréchet distance: two sets of features as Gaussians, by mean and covariance; lower is better.",
        "common.evaluation.frechet.frechet_distance",
    ),
}
