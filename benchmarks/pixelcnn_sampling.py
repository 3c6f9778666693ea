"""Drawing images from a PixelCNN: with a cache, against the whole network for each pixel, and against its own rows.

"naive" computes all conditionals of the image for each pixel, "cropped" those rows that the pixel depends on. All three
draw the same images from the same random numbers, which is checked first, in float64.

The slow two draw the last row alone, given the others, since a whole batch takes minutes. For "naive" that is 1/28 of
the work, each pixel costing the same; for "cropped" the share of rows that are computed, which leaves out what each
call costs beyond them, in its favour.
"""

import statistics
from unittest import mock

import torch

from benchmarks.measure import Agreement, Result, Row, Setting, Target, take_turns
from projects.pixelcnn import pixelcnn

BATCH, TURNS = 16, 3
METHODS = ("cached", "cropped", "naive")
MODELS = {  # row -> the published laptop run whose sizes it has
    "28x28, 2 levels, PixelCNN": "pixelcnn-mnist",
    "28x28, 2 levels, Gated PixelCNN": "gated-mnist",
    "28x28, 256 levels, Gated PixelCNN": "gated-fashion",
}


def draw(model: pixelcnn.Autoregressive, method: str, known: torch.Tensor | None = None) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return model.sample(BATCH, generator=generator, method=method, known=known)  # type: ignore[arg-type]


def images(model: pixelcnn.Autoregressive, method: str) -> float:
    """Draw, and say how many images' work that was."""
    if method == "cached":
        draw(model, method)
        return BATCH
    channels, height, width = model.image
    with mock.patch.object(pixelcnn, "Cache"):  # which every call makes, and which these have no use for
        draw(model, method, torch.zeros(BATCH, channels, height - 1, width))
    computed = [min(i, model.reach) + 1 if method == "cropped" else height for i in range(height)]  # rows, row by row
    return BATCH * computed[-1] / sum(computed)


def completed(model: pixelcnn.Autoregressive) -> torch.Tensor:
    """The last row by "naive", given the other rows of "cached" draws."""
    return draw(model, "naive", draw(model, "cached")[:, :, :-1])[:, :, -1]


def main(setting: Setting) -> Result:
    found = Result("pixelcnn_sampling", "Drawing images from a PixelCNN, with a cache and without")
    others = 0
    for name in ("pixelcnn", "gated"):
        small = pixelcnn.build(pixelcnn.Config(name, "digits", blocks=2)).double().eval()  # type: ignore[arg-type]
        others += sum(int((draw(small, "cached") != draw(small, other)).sum()) for other in METHODS[1:])
    for title, run in list(MODELS.items())[: setting.size(len(MODELS), 1)]:
        model = pixelcnn.build(pixelcnn.PRESETS["laptop"][run]).eval()
        if not setting.quick:
            agree = (draw(model, "cached")[:, :, -1] == completed(model)).double().mean()
            found.notes[f"pixels of the last row drawn alike in float32, {title}"] = f"{float(agree):.2%}"
        candidates = {method: (lambda m=method, model=model: images(model, m)) for method in METHODS}
        row = Row(
            title,
            "images/s",
            METHODS[0],
            take_turns(candidates, setting.turns(TURNS), warm_up=0),
            dict.fromkeys(METHODS[1:], ""),
            f"the same network with random weights, {BATCH} images at once, float32",
            Agreement("pixels drawn otherwise by the same random numbers, in float64", others, 0),
            Target(15),
        )
        found.rows.append(row)
        found.notes[f"cached over naive, {title}"] = statistics.median(row.ratios("naive"))
        found.notes[f"parameters, {title}"] = f"{sum(p.numel() for p in model.parameters()):,}"
    return found
