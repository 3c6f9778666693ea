"""The k = 5000 bound against the straightforward loop, on the IWAE paper's one-layer network.

The straightforward loop takes one image at a time, draws its 5000 samples at once, and takes one log-mean-exp. What
bounds either is the last matrix product, 200 -> 784 for each of 5000 samples of each image; the rate it is done at is
measured beside them, alone, so that the result says how far from that floor the evaluation is.
"""

import time

import torch

from benchmarks.measure import Comparison, take_turns
from common.evaluation.likelihood import importance_log_likelihood, log_mean_exp
from projects.iwae.iwae import PRESETS, build

IMAGES, K = 40, 5000


def main() -> Comparison:
    torch.set_flush_denormal(True)
    model = build(PRESETS["paper"]["iwae-1l-k50"]).eval()
    generator = torch.Generator().manual_seed(0)
    x = torch.bernoulli(torch.full((IMAGES, 784), 0.15), generator=generator)
    values = {}

    def ours() -> int:
        values["ours"] = importance_log_likelihood(model.log_weights, x, k=K, generator=generator)
        return IMAGES * K

    @torch.inference_mode()
    def straightforward() -> int:
        values["loop"] = torch.stack(
            [log_mean_exp(model.log_weights(image[None], K, generator), 0)[0] for image in x]
        ).double()
        return IMAGES * K

    comparison = Comparison(
        "likelihood_bound",
        "The k=5000 bound of one image after the other (decoder 50-200-200-784, float32)",
        "samples",
        "as fast as the hardware allows",
        "importance_log_likelihood",
        "straightforward loop",
        take_turns({"importance_log_likelihood": ours, "straightforward loop": straightforward}, turns=5),
    )
    # The floor: the decoder's three matrix products alone, in the same chunks.
    layers = [(50, 200), (200, 200), (200, 784)]
    operands = [(torch.randn(1000, a), torch.randn(b, a)) for a, b in layers]
    start, repeats = time.perf_counter(), 50
    for _ in range(repeats):
        for a, b in operands:
            a @ b.T
    floor = 1000 * repeats / (time.perf_counter() - start)
    comparison.notes["matrix products alone, samples/s"] = floor
    comparison.notes["share of that floor reached"] = comparison.medians["importance_log_likelihood"] / floor
    comparison.notes["difference of the two estimates, nats"] = float((values["ours"] - values["loop"]).abs().mean())
    return comparison
