"""The Fréchet distance from features: moments and distance, against torch-fidelity, torchmetrics and clean-fid.

All get the same float64 features and give the same distance. torch-fidelity and torchmetrics take the eigenvalues of a
product that is not symmetric, clean-fid the root of that product; ours takes those of a symmetric one.
"""

import torch
from torch import Tensor, nn

from benchmarks.distances import EQUAL, relative, two_sets, what
from benchmarks.measure import Agreement, Result, Row, Setting, Target, take_turns
from benchmarks.peers import allow_torchvision
from common.evaluation.frechet import Moments
from common.evaluation.frechet_bias import distance

OURS, TURNS = "frechet_bias.distance", 3


class AsTheyAre(nn.Module):
    """A network for torchmetrics, which hands on features."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, x: Tensor) -> Tensor:
        return x


def main(setting: Setting) -> Result:
    allow_torchvision()
    from cleanfid import fid as clean
    from torch_fidelity import metric_fid as fidelity
    from torchmetrics.image.fid import FrechetInceptionDistance

    samples, data = pair = two_sets(setting)
    found: dict[str, float] = {}

    def ours() -> float:
        return distance(Moments().add(samples), Moments().add(data))

    def torch_fidelity() -> float:
        sides = [fidelity.fid_features_to_statistics(side) for side in pair]
        return float(fidelity.fid_statistics_to_metric(*sides, verbose=False)[fidelity.KEY_METRIC_FID])

    def torchmetrics() -> float:
        metric = FrechetInceptionDistance(feature=AsTheyAre(samples.shape[1])).set_dtype(torch.float64)
        metric.update(samples, real=False)
        metric.update(data, real=True)
        return float(metric.compute())

    def clean_fid() -> float:
        return float(clean.fid_from_feats(samples.numpy(), data.numpy()))

    def once(name: str) -> int:
        found[name] = candidates[name]()
        return 1

    peers = {"torch-fidelity": torch_fidelity, "torchmetrics": torchmetrics, "clean-fid": clean_fid}
    candidates = {OURS: ours, **peers}
    turns = {name: (lambda name=name: once(name)) for name in candidates}
    row = Row(
        "Fréchet distance, moments included",
        "s",
        OURS,
        take_turns(turns, setting.turns(TURNS), warm_up=0, seconds=True),
        {name: name for name in peers},
        what(pair),
        Agreement(
            "largest relative difference of the distances", max(relative(found[OURS], found[n]) for n in peers), EQUAL
        ),
        Target(2.0),
        "Both sides' moments are most of the time that ours takes; numpy halves that product, which is symmetric.",
        less_is_better=True,
    )
    return Result("frechet_peers", "The Fréchet distance of two sets of features", [row])
