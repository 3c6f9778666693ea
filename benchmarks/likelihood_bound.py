"""The k = 5000 bound against the straightforward loop, on the IWAE paper's one-layer network.

The straightforward loop takes one image at a time, draws its 5000 samples at once, and takes one log-mean-exp. What
bounds either is the last matrix product, 200 -> 784 for each of 5000 samples of each image; the rate it is done at is
measured beside them, alone, so that the result says how far from that floor the evaluation is.
"""

import torch

from benchmarks.measure import Agreement, Result, Row, Setting, take_turns
from common.evaluation.likelihood import importance_log_likelihood, log_mean_exp
from projects.iwae.iwae import PRESETS, build

IMAGES, K = 40, 5000
OURS, PEER, FLOOR = "importance_log_likelihood", "straightforward loop", "matrix products alone"


def main(setting: Setting) -> Result:
    torch.set_flush_denormal(True)
    device = setting.device
    model = build(PRESETS["paper"]["iwae-1l-k50"]).eval().to(device)
    generator = torch.Generator(device).manual_seed(0)
    images, k = setting.size(IMAGES, 2), setting.size(K, 50)
    x = torch.bernoulli(torch.full((images, 784), 0.15), generator=torch.Generator().manual_seed(0)).to(device)

    def ours() -> int:
        importance_log_likelihood(model.log_weights, x, k=k, generator=generator)
        return images * k

    @torch.inference_mode()
    def straightforward() -> int:
        torch.stack([log_mean_exp(model.log_weights(image[None], k, generator), 0)[0] for image in x]).double().cpu()
        return images * k

    # The floor: the decoder's three matrix products, in the same chunks.
    chunk = min(k, 1000)
    layers = [(50, 200), (200, 200), (200, 784)]
    operands = [(torch.randn(chunk, a, device=device), torch.randn(b, a, device=device)) for a, b in layers]

    @torch.inference_mode()
    def products() -> int:
        for _ in range(images * k // chunk):
            for a, b in operands:
                a @ b.T
        return images * k // chunk * chunk

    @torch.inference_mode()
    def apart() -> float:
        """Of the two ways with the same samples, where they fit into one chunk, so that the same numbers are drawn."""
        few = min(k, 1000)
        again = generator.manual_seed(1)
        mine = importance_log_likelihood(model.log_weights, x[:2], k=few, generator=again, samples_at_once=few)
        generator.manual_seed(1)
        theirs = [log_mean_exp(model.log_weights(image[None], few, generator), 0)[0] for image in x[:2]]
        return float((mine - torch.stack(theirs).double().cpu()).abs().max())

    row = Row(
        f"log-weights of k = {k:,} samples an image",
        "samples/s",
        OURS,
        take_turns({OURS: ours, PEER: straightforward, FLOOR: products}, setting.turns(5), device=device),
        {PEER: "torch"},
        f"the same {images} images and network (decoder 50-200-200-784), float32",
        Agreement("nats between the two, from the same random numbers", apart(), 1e-3),
    )
    found = Result("likelihood_bound", f"The k = {k:,} bound of one image after the other", [row], device=device)
    found.notes["share of the matrix products' rate reached"] = row.medians[OURS] / row.medians[FLOOR]
    return found
