"""Precision, recall, density and coverage from features: against torch-fidelity and prdc.

torch-fidelity has precision and recall, prdc all four with one k, as ours here. All get the same float64 features and
have to count the same. Ours multiplies in float32 first, and settles in float64 what that leaves open.
"""

import contextlib
import io

from benchmarks.distances import two_sets, what
from benchmarks.measure import Agreement, Result, Row, Setting, Target, take_turns
from benchmarks.peers import allow_torchvision
from common.evaluation.manifold import manifold

OURS, K, TURNS = "manifold.manifold", 3, 3
Shares = tuple[float, ...]


def main(setting: Setting) -> Result:
    allow_torchvision()
    from prdc import compute_prdc
    from torch_fidelity import metric_prc as fidelity

    samples, data = pair = two_sets(setting)
    found: dict[str, Shares] = {}

    def ours() -> Shares:
        all_four = manifold(samples, data, k_pr=K, k_dc=K)
        return all_four.precision, all_four.recall, all_four.density, all_four.coverage

    def torch_fidelity() -> Shares:
        shares = fidelity.prc_features_to_metric(samples, data, prc_neighborhood=K, verbose=False)
        return shares[fidelity.KEY_METRIC_PRECISION], shares[fidelity.KEY_METRIC_RECALL]

    def prdc() -> Shares:
        with contextlib.redirect_stdout(io.StringIO()):  # it says what it was given
            shares = compute_prdc(data.numpy(), samples.numpy(), nearest_k=K)
        return tuple(float(shares[name]) for name in ("precision", "recall", "density", "coverage"))

    def once(name: str) -> int:
        found[name] = candidates[name]()
        return 1

    candidates = {OURS: ours, "torch-fidelity": torch_fidelity, "prdc": prdc}
    peers = {name: name for name in candidates if name != OURS}
    turns = {name: (lambda name=name: once(name)) for name in candidates}
    measured = take_turns(turns, setting.turns(TURNS), warm_up=0, seconds=True)
    apart = max(abs(a - b) for name in peers for a, b in zip(found[OURS], found[name], strict=False))
    row = Row(
        "precision and recall; ours and prdc: density and coverage, too",
        "s",
        OURS,
        measured,
        peers,
        f"{what(pair)}, k = {K}",
        # A single sample counted otherwise would be 1 / n.
        Agreement("largest difference of a share", apart, 1e-6),
        Target(2.0),
        "The products of all pairs are most of the time.",
        less_is_better=True,
    )
    result = Result("neighbours_peers", "Precision, recall, density and coverage of two sets of features", [row])
    for name, value in zip(("precision", "recall", "density", "coverage"), found[OURS], strict=True):
        result.notes[name] = value
    return result
