"""The kernel distance (KID) from features, 100 subsets of 1,000: against torch-fidelity, torchmetrics and clean-fid.

All get the same float64 features. Each draws its own subsets; that they compute the same is checked where there is no
choice, a subset being everything. Ours centres the features, so that products in float32 are good enough; what comes of
float32 in the peers, which is what networks give them, is in the notes.
"""

import numpy as np
import torch

from benchmarks.distances import EQUAL, relative, two_sets, what
from benchmarks.frechet_peers import AsTheyAre
from benchmarks.measure import Agreement, Result, Row, Setting, Target, take_turns
from benchmarks.peers import allow_torchvision
from common.evaluation.kernels import kid_of_subsets

OURS, TURNS = "kernels.kid_of_subsets", 3
WHY = "Preparing centred features, and sums of powers over all pairs, cost what products in float32 save."


def main(setting: Setting) -> Result:
    allow_torchvision()
    from cleanfid import fid as clean
    from torch_fidelity import metric_kid as fidelity
    from torchmetrics.image.kid import KernelInceptionDistance

    pair = two_sets(setting)
    generator = torch.Generator().manual_seed(0)

    def ours(samples: torch.Tensor, data: torch.Tensor, subsets: int, size: int) -> float:
        return float(kid_of_subsets(samples, data, generator=generator, subsets=subsets, size=size).mean())

    def torch_fidelity(samples: torch.Tensor, data: torch.Tensor, subsets: int, size: int) -> float:
        how = {"kid_subsets": subsets, "kid_subset_size": size, "rng_seed": 0, "verbose": False}
        return float(fidelity.kid_features_to_metric(samples, data, **how)[fidelity.KEY_METRIC_KID_MEAN])

    def torchmetrics(samples: torch.Tensor, data: torch.Tensor, subsets: int, size: int) -> float:
        metric = KernelInceptionDistance(feature=AsTheyAre(samples.shape[1]), subsets=subsets, subset_size=size)
        metric.set_dtype(samples.dtype)
        metric.update(samples, real=False)
        metric.update(data, real=True)
        return float(metric.compute()[0])

    def clean_fid(samples: torch.Tensor, data: torch.Tensor, subsets: int, size: int) -> float:
        np.random.seed(0)  # noqa: NPY002 - it draws from there
        return float(clean.kernel_distance(samples.numpy(), data.numpy(), num_subsets=subsets, max_subset_size=size))

    peers = {"torch-fidelity": torch_fidelity, "torchmetrics": torchmetrics, "clean-fid": clean_fid}
    candidates = {OURS: ours, **peers}
    few = setting.size(2000, 100)
    whole = [side[:few] for side in pair]
    single = [side.float() for side in whole]
    values = {name: value(*whole, 2, few) for name, value in candidates.items()}
    subsets, size = setting.size(100, 2), setting.size(1000, 50)

    def once(name: str) -> int:
        candidates[name](*pair, subsets, size)
        return 1

    turns = {name: (lambda name=name: once(name)) for name in candidates}
    row = Row(
        f"KID, {subsets} subsets of {size:,}",
        "s",
        OURS,
        take_turns(turns, setting.turns(TURNS), warm_up=0, seconds=True),
        {name: name for name in peers},
        what(pair),
        Agreement(
            f"largest relative difference of KID, one subset of all {few:,}",
            max(relative(values[OURS], values[name]) for name in peers),
            EQUAL,
        ),
        Target(2.0),
        WHY,
        less_is_better=True,
    )
    result = Result("kid_peers", "The kernel distance of two sets of features", [row])
    for name, value in peers.items():
        off = relative(value(*single, 2, few), values[OURS])
        result.notes[f"relative difference of {name}'s value where it is given the same features in float32"] = off
    return result
