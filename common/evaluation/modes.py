"""Which components of a mixture do samples reach? For points in the plane, and anything else with known centres."""

import torch
from torch import Tensor

from common.evaluation.likelihood import mean_score
from common.records import Score


def mode_scores(samples: Tensor, centres: Tensor, deviation: float) -> tuple[list[Score], Tensor]:
    """Modes reached and share of samples of high quality, as in Srivastava et al. 2017 and Lin et al. 2018.

    A sample is of high quality within 3 deviations of its nearest centre (of a Gaussian in the plane 98.9 % are); a
    mode is reached by a sample of high quality. Of how evenly modes are reached this says nothing.

    Args:
        samples: (n, D).
        centres: (K, D) of Gaussians of one `deviation` in every dimension.

    Returns: the scores "modes" and "high_quality", and of the latter the values (n,), 0 or 1.
    """
    distance, nearest = torch.cdist(samples.double().cpu(), centres.double().cpu()).min(1)
    good = distance < 3 * deviation
    rule = f"within 3 deviations of one of {len(centres)} centres, {len(samples):,} samples"
    reached = len(torch.unique(nearest[good]))
    share = mean_score(good.double(), "high_quality", unit="share", kind="estimate", split="test", protocol=rule)
    return [Score("modes", reached, None, len(samples), "modes", "exact", "test", "raw", rule), share], good.double()
