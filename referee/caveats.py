"""What a reader of `referee evaluate` should know beside the numbers: copies, degenerate samples, errors of 0."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from common.records import Score

if TYPE_CHECKING:
    from torch import Tensor

    from common.evaluation.bank import Bank

INDEPENDENT = ("precision", "copies", "c2st")
"""Shares of examples that are independent of each other, the reference or the classifier as it is."""

ROUNDING = 1e-9
"""Errors that are not larger, compared with their value, are what sums of equal numbers leave."""


def repeated(marks: Sequence[bytes]) -> list[str]:
    """Samples that are there more than once, by their `common.evaluation.duplicates.fingerprints`."""
    from common.evaluation.duplicates import repeats

    again = repeats(marks)
    return [f"{again:,} of {len(marks):,} samples repeat another one to the bit"] if again else []


def of_the_reference(marks: Sequence[bytes], codes: Tensor) -> str:
    """Samples that are what they are compared with, uint8 (m, C, H, W); "" where none is."""
    from common.evaluation.duplicates import fingerprints, shared

    count = shared(marks, fingerprints(codes))
    return f"{count:,} of {len(marks):,} samples are images of the reference" if count else ""


def of_its_features(samples: Bank, reference: Bank) -> str:
    """The same where there are features alone."""
    from common.evaluation.duplicates import fingerprints, shared

    if samples.network != reference.network:
        return ""
    count = shared(fingerprints(samples.x), fingerprints(reference.x))
    return f"{count:,} of {samples.n:,} samples have the features of an example of the reference" if count else ""


def of_training(marks: Sequence[bytes], codes: Tensor, name: str) -> list[str]:
    """Samples that are training examples, uint8 (m, C, H, W)."""
    from common.evaluation.duplicates import fingerprints, shared

    count = shared(marks, fingerprints(codes))
    return [f"{count:,} of {len(marks):,} samples are training images of {name}"] if count else []


def coverage_of_data(reference: int, samples: int) -> str:
    """What to hold a coverage against."""
    from common.evaluation.manifold import expected_coverage

    expected = expected_coverage(reference, samples)
    return f"so many samples of the data's own distribution have a coverage of {expected:.3f} on average"


def without_error(score: Score) -> tuple[Score, str]:
    """A score whose error came out as 0, which no error is: without one, and with what is known instead.

    Where all of n independent examples have, or all lack, what is counted, the true share is with 95 % confidence
    within 1 - 0.05^(1/n), about 3 / n, of 1 or of 0 (Clopper & Pearson 1934, one-sided).

    Returns: the score, and "≤ 0.015 at 95 %", "error unknown" or, where it has an error or needs none, "".
    """
    if score.kind == "exact" or (score.stderr is not None and score.stderr > ROUNDING * abs(score.value)):
        return score, ""
    unknown = dataclasses.replace(score, stderr=None)
    if score.name.partition("[")[0] in INDEPENDENT and score.value in (0, 1):
        within = 1 - 0.05 ** (1 / score.n)
        return unknown, f"≤ {within:.2g} at 95 %" if score.value == 0 else f"≥ {1 - within:.4g} at 95 %"
    return unknown, "error unknown"
