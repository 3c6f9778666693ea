"""PixelCNN: Pixel Recurrent Neural Networks. van den Oord, Kalchbrenner & Kavukcuoglu, ICML 2016 ("PixelRNN" below).
Gated PixelCNN: Conditional Image Generation with PixelCNN Decoders. van den Oord et al., NIPS 2016 ("Gated" below).
https://arxiv.org/abs/1601.06759 and https://arxiv.org/abs/1606.05328

An image is read row by row, from left to right, and at each pixel red, green, blue. Every value is a class of its own:

    p(x) = prod_i p(x_i | x_1, ..., x_{i-1})                                        (PixelRNN, section 2; Gated, eq. 1)

All conditionals come from one convolutional network at once, if no output sees its own input or a later one. The
filters of a masked convolution end at the pixel itself, where mask A lets a colour see the colours before it, mask B
also itself: A is for the first layer, B for all others (PixelRNN, section 3.4). A stack of them has a blind spot, far
to the right in the rows above. Two stacks have none (Gated, section 2.2, figure 2): a vertical one, for all rows
above, feeds a horizontal one, for what is left of the pixel in its own row. Their units are

    y = tanh(W_f * x + V_f^T h) . sigmoid(W_g * x + V_g^T h)                       (Gated, eq. 2; with a class h, eq. 4)

Notation     here              shape                    paper
             x                 (B, C, H, W) in [0, 1]   x, an image; codes 0, ..., L-1 divided by L-1
             y                 (B,)                     the class, whose one-hot vector is h in eq. 4
             f, v, h           (B, F, H, W)             feature maps: of PixelCNN; of the vertical and horizontal stack
             features          F / 2 or F               h of PixelCNN, whose maps have 2h features; p of Gated PixelCNN
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import RMSprop

from common import plotting, probes
from common.data import Batch, Batches, Scale, Split, bits_per_dim, load
from common.errors import ConfigError
from common.evaluation.likelihood import mean_score
from common.evaluation.shards import by_batch
from common.experiment import Run
from common.records import Score
from common.training import State, fit, place, sgd_step

IMAGES = {  # C, H, W; levels L; classes
    "binarized_mnist": ((1, 28, 28), 2, 0),
    "fashion_mnist": ((1, 28, 28), 256, 10),
    "cifar10": ((3, 32, 32), 256, 10),
    "digits": ((1, 8, 8), 17, 10),
}


@dataclass(frozen=True)
class Config:
    """One run."""

    model: Literal["pixelcnn", "gated"] = "gated"
    dataset: Literal["binarized_mnist", "fashion_mnist", "cifar10", "digits"] = "binarized_mnist"
    conditional: bool = False  # the class is given (Gated, eq. 4)
    features: int = 16  # h of PixelCNN, p of Gated PixelCNN
    blocks: int = 6  # layers of k x k filters, after the first layer
    first: int = 7  # width of the first layer's filters
    kernel: int = 3  # k, width of the others'
    head: int = 32  # features between the last two layers, which are 1 x 1
    batch_size: int = 16
    learning_rate: float = 6e-3  # at the start; it falls linearly to 0
    passes: float = 1.0  # over the training set
    scored: int = 10_000  # test images, and validation images; rounded up to hundreds
    seed: int = 0

    def __post_init__(self) -> None:
        (channels, *_), _, classes = IMAGES[self.dataset]
        least = {"features": channels, "head": channels, "first": 3, "kernel": 3, "learning_rate": 1e-9, "passes": 1e-9}
        for name in ("blocks", "batch_size", "scored", *least):
            if getattr(self, name) < (smallest := least.get(name, 1)):
                raise ConfigError(f"{name} = {getattr(self, name)}: give {smallest} or more.")
        if self.first % 2 == 0 or self.kernel % 2 == 0:
            raise ConfigError(f"first = {self.first}, kernel = {self.kernel}: a filter has a centre, so an odd width.")
        if self.conditional and (self.model != "gated" or not classes):
            raise ConfigError("conditional = True: it takes the gated model, and a data set with classes.")


# -- Masked convolutions (PixelRNN, section 3.4) -----------------------------------------------------------------------


def colours(features: int, channels: int, halves: int = 1) -> Tensor:
    """Which colour, 0, ..., C-1, each feature belongs to: equal shares, in order, within each half. (features,)."""
    return (torch.arange(features // halves) * channels // (features // halves)).repeat(halves)


class MaskedConv2d(nn.Module):
    """A convolution over `rows` rows, the last of which is the pixel's own, and `left` + 1 + `right` columns.

    Inputs and outputs are given by their colours. Rows below the pixel would all be masked: they do not exist. Masked
    is what lies to the right in its row and, at the pixel itself, all but the colours before the output's ("A"), or all
    but these and its own ("B"); "none" masks nothing. Masked weights are 0 and stay so: their gradient is exactly 0.
    """

    def __init__(self, ins: Tensor, outs: Tensor, mask: str, rows: int = 1, left: int = 0, right: int = 0) -> None:
        super().__init__()
        self.mask, self.rows, self.left, self.right = mask, rows, left, right
        M = torch.ones(len(outs), len(ins), rows, left + 1 + right)
        if mask != "none":
            M[:, :, -1, left] = (ins < outs[:, None] if mask == "A" else ins <= outs[:, None]).float()
            M[:, :, -1, left + 1 :] = 0
        self.register_buffer("M", None if M.all() else M, persistent=False)
        bound = 1 / math.sqrt(max(1, M.sum((1, 2, 3)).max()))  # by the number of inputs that are seen
        self.W = nn.Parameter(nn.init.uniform_(torch.empty(M.shape), -bound, bound) * M)
        self.b = nn.Parameter(nn.init.uniform_(torch.empty(len(outs)), -bound, bound))

    def weight(self) -> Tensor:
        return self.W if self.M is None else self.W * self.M

    def forward(self, x_BFHW: Tensor) -> Tensor:
        return F.conv2d(F.pad(x_BFHW, (self.left, self.right, self.rows - 1, 0)), self.weight(), self.b)


Convolve = Callable[[MaskedConv2d, Tensor], Tensor]  # to whole images, or with a `Cache` to pieces of them

# -- Models ------------------------------------------------------------------------------------------------------------


class Autoregressive(nn.Module):
    """What both models have in common: p(x | y) as a product, and draws from it.

    A model has two parts. `above(x, y, convolve)` is for rows above the pixel's own: its x is the image moved down by
    one row. `maps(x, y, above, convolve)` is for the image itself, with masks, and takes what the first part found.
    """

    def __init__(self, config: Config, image: tuple[int, int, int], levels: int, maps: Tensor) -> None:
        super().__init__()
        self.image, self.levels = image, levels
        self.reach = config.first // 2 + config.blocks * (config.kernel // 2)  # rows above that a pixel depends on
        between, outs = (colours(size, image[0]) for size in (config.head, image[0] * levels))
        self.head = nn.ModuleList([MaskedConv2d(maps, between, "B"), MaskedConv2d(between, outs, "B")])

    def forward(self, x_BCHW: Tensor, y_B: Tensor | None = None) -> Tensor:
        """Logits of p(x_i = l | x_<i, y), (B, L, C, H, W)."""
        above = self.above(F.pad(x_BCHW, (0, 0, 1, -1)), y_B, MaskedConv2d.__call__)
        return self.logits(x_BCHW, y_B, above, MaskedConv2d.__call__)

    def logits(self, x: Tensor, y: Tensor | None, above: Sequence[Tensor], convolve: Convolve) -> Tensor:
        f = self.maps(x, y, above, convolve)
        for layer in self.head:  # two 1 x 1 layers, each after a ReLU (PixelRNN, table 1)
            f = convolve(layer, F.relu(f))
        return f.unflatten(1, (-1, self.levels)).transpose(1, 2)

    def log_prob(self, x_BCHW: Tensor, y_B: Tensor | None = None) -> Tensor:
        """log p(x | y) = sum_i log p(x_i | x_<i, y): (B,) nats, exact."""
        codes = (x_BCHW * (self.levels - 1)).round().long()
        return -F.cross_entropy(self(x_BCHW, y_B), codes, reduction="none").flatten(1).sum(1)

    @torch.no_grad()
    def sample(
        self,
        n: int,
        y_B: Tensor | None = None,
        *,
        generator: torch.Generator,
        method: Literal["cached", "cropped", "naive"] = "cached",
        known: Tensor | None = None,
    ) -> Tensor:
        """n draws, (n, C, H, W) in [0, 1], each value from its conditional. Upper rows that are `known` are completed.

        "naive" computes the whole image for each value, "cropped" those of its rows that the pixel depends on, "cached"
        what is new (`Cache`). For the same generator they give the same draws, in float64 without exception; in float32
        unless a random number is within rounding (some 1e-6) of the border between two values.
        """
        C, H, W = self.image
        u = torch.rand(n, C, H, W, generator=generator, device=generator.device, dtype=next(self.parameters()).dtype)
        x = torch.zeros_like(u)
        known_rows = 0 if known is None else known.shape[2]
        x[:, :, :known_rows] = 0 if known is None else known
        logits_at = {  # row i, column j -> (n, L, C)
            "cached": Cache(self, x, y_B, known_rows).logits,
            "cropped": lambda i, j: self(x[:, :, max(0, i - self.reach) : i + 1], y_B)[..., -1, j],
            "naive": lambda i, j: self(x, y_B)[..., i, j],
        }[method]
        for i, j, c in itertools.product(range(known_rows, H), range(W), range(C)):
            up_to = logits_at(i, j)[..., c].softmax(1).cumsum(1)
            x[:, c, i, j] = (up_to[:, :-1] <= u[:, c, i, j, None]).sum(1) / (self.levels - 1)
        return x


class PixelCNN(Autoregressive):
    """Masked convolutions with residual connections (PixelRNN, section 3.5, figure 5 and table 1)."""

    def __init__(self, config: Config, image: tuple[int, int, int], levels: int, classes: int = 0) -> None:
        C, k1, k = image[0], config.first // 2, config.kernel // 2
        h, h2 = colours(config.features, C), colours(2 * config.features, C)
        super().__init__(config, image, levels, maps=h2)
        self.first = MaskedConv2d(torch.arange(C), h2, "A", k1 + 1, k1, k1)
        layer = partial(MaskedConv2d, mask="B")
        self.blocks = nn.ModuleList(
            nn.ModuleList([layer(h2, h), layer(h, h, rows=k + 1, left=k, right=k), layer(h, h2)])
            for _ in range(config.blocks)
        )

    def above(self, x: Tensor, y: Tensor | None, convolve: Convolve) -> Sequence[Tensor]:
        return ()  # one stack has to do

    def maps(self, x: Tensor, y: Tensor | None, above: Sequence[Tensor], convolve: Convolve) -> Tensor:
        f = convolve(self.first, x)
        for reduce, spread, restore in self.blocks:
            f = f + convolve(restore, F.relu(convolve(spread, F.relu(convolve(reduce, F.relu(f))))))
        return f


def gate(y: Tensor) -> Tensor:
    """tanh(y_f) . sigmoid(y_g), (B, 2p, H, W) -> (B, p, H, W) (Gated, eq. 2)."""
    f, g = y.chunk(2, 1)
    return torch.tanh(f) * torch.sigmoid(g)


class GatedLayer(nn.Module):
    """One layer of both stacks, of p features from `ins` features (Gated, figure 2).

    The vertical stack needs no mask: it reads the image moved down by one row. The last row of that is the one above
    the pixel, so that a k x k filter with mask A has k // 2 rows of it.
    """

    def __init__(self, ins: Tensor, p: int, C: int, kernel: int, mask: Literal["A", "B"], classes: int) -> None:
        super().__init__()
        half, p1, p2 = kernel // 2, colours(p, C), colours(2 * p, C, halves=2)
        self.vertical = MaskedConv2d(ins, p2, "none", half + (mask == "B"), half, half)
        self.horizontal = MaskedConv2d(ins, p2, mask, left=half)
        self.link = MaskedConv2d(p2, p2, "none")  # from the vertical to the horizontal stack
        self.out = MaskedConv2d(p1, p1, "B")
        # V of eq. 4 for each stack; 0 at first, as if no class were given.
        self.V = nn.ParameterList(nn.Parameter(torch.zeros(classes, 2 * p)) for _ in range(2 * bool(classes)))

    def condition(self, stack: int, y: Tensor | None) -> Tensor | float:  # V^T h, (B, 2p, 1, 1)
        return self.V[stack][y][..., None, None] if len(self.V) else 0.0


class GatedPixelCNN(Autoregressive):
    """Two stacks of gated convolutions, with residual connections in the horizontal one (Gated, section 2)."""

    def __init__(self, config: Config, image: tuple[int, int, int], levels: int, classes: int = 0) -> None:
        C, p = image[0], config.features
        super().__init__(config, image, levels, maps=colours(p, C))
        self.layers = nn.ModuleList([GatedLayer(torch.arange(C), p, C, config.first, "A", classes)])
        for _ in range(config.blocks):
            self.layers.append(GatedLayer(colours(p, C), p, C, config.kernel, "B", classes))

    def above(self, x: Tensor, y: Tensor | None, convolve: Convolve) -> Sequence[Tensor]:
        v, links = x, []
        for layer in self.layers:
            v = convolve(layer.vertical, v) + layer.condition(0, y)
            links.append(convolve(layer.link, v))
            v = gate(v)
        return links

    def maps(self, x: Tensor, y: Tensor | None, above: Sequence[Tensor], convolve: Convolve) -> Tensor:
        h = x
        for layer, link in zip(self.layers, above, strict=True):
            new = convolve(layer.out, gate(convolve(layer.horizontal, h) + link + layer.condition(1, y)))
            h = h + new if h is not x else new
        return h


class Cache:
    """What sampling has computed and will need again: of each convolution's input the last rows, in a window.

    The model's own code runs on pieces: `above` on a row as soon as the row before it is known, `logits` on one pixel,
    (B, F, 1, 1). Only convolutions differ: each writes its piece into its window and looks at what stands around it.
    """

    def __init__(self, model: Autoregressive, x: Tensor, y: Tensor | None, known_rows: int = 0) -> None:
        self.model, self.x, self.y, self.i = model, x, y, -1
        layers = [layer for layer in model.modules() if isinstance(layer, MaskedConv2d)]
        self.weights = {layer: layer.weight() for layer in layers}
        self.reads_image = next(layer for layer in layers if layer.mask == "A")
        self.windows = {
            layer: x.new_zeros(len(x), layer.W.shape[1], layer.rows, layer.left + x.shape[3] + layer.right)
            for layer in layers
            if layer.W[0, 0].numel() > 1
        }
        for i in range(known_rows):
            self.begin_row(i)
            model.logits(x[:, :, i : i + 1], y, self.links, self.convolve)

    def begin_row(self, i: int) -> None:
        """Move all windows down by one row, to row i."""
        for window in self.windows.values():
            window[:, :, :-1] = window[:, :, 1:].clone()
            window[:, :, -1] = 0
        self.i, before = i, F.pad(self.x, (0, 0, 1, 0))[:, :, i : i + 1]
        self.links = self.model.above(before, self.y, self.convolve)

    def logits(self, i: int, j: int) -> Tensor:
        """The model's logits at row i and column j, (B, L, C); pixels come one after the other, and x knows them."""
        if i > self.i:
            self.begin_row(i)
        own = self.reads_image  # whose window is behind: a value was drawn since it was written to
        self.windows[own] = F.pad(self.x, (own.left, own.right, own.rows - 1, 0))[:, :, i : i + own.rows]
        pixel, links = self.x[:, :, i : i + 1, j : j + 1], [link[..., j : j + 1] for link in self.links]
        return self.model.logits(pixel, self.y, links, partial(self.convolve, j=j))[..., 0, 0]

    def convolve(self, layer: MaskedConv2d, x_BF1w: Tensor, j: int = 0) -> Tensor:
        """Of a piece of the row at hand, from column j on: the whole row, or a pixel of it."""
        if (window := self.windows.get(layer)) is not None:
            width = layer.left + x_BF1w.shape[3]
            window[:, :, -1:, j + layer.left : j + width] = x_BF1w
            x_BF1w = window[..., j : j + width + layer.right]
        if x_BF1w.shape[2:] == layer.W.shape[2:]:  # for one output, ten times faster than a convolution
            return F.linear(x_BF1w.flatten(1), self.weights[layer].flatten(1), layer.b)[..., None, None]
        return F.conv2d(x_BF1w, self.weights[layer], layer.b)


# -- Training and evaluation -------------------------------------------------------------------------------------------


def build(config: Config) -> Autoregressive:
    """The untrained model, initialised from the configuration's seed."""
    torch.manual_seed(config.seed)
    image, levels, classes = IMAGES[config.dataset]
    model = PixelCNN if config.model == "pixelcnn" else GatedPixelCNN
    return model(config, image, levels, classes if config.conditional else 0)


def train(config: Config, run: Run) -> Autoregressive:
    """Maximise log p(x | y) by RMSProp (PixelRNN, section 5.2)."""
    data = run.uses(load(config.dataset))
    model = place(build(config), run.device, channels_last=True)
    optimizer = RMSprop(model.parameters(), lr=config.learning_rate, alpha=0.95)
    batches = Batches(data.train, config.batch_size, seed=config.seed, device=run.device)
    steps = math.ceil(config.passes * len(batches))

    def step(state: State, batch: Batch) -> dict[str, Tensor]:
        optimizer.param_groups[0]["lr"] = config.learning_rate * (1 - state.step / steps)
        batch = Batch(Scale(data.levels).encode(batch.x)[0], batch.y if config.conditional else None)
        return sgd_step(lambda b: (-model.log_prob(b.x, b.y).mean(), {}), optimizer, batch)

    state = State(model, {"rmsprop": optimizer}, torch.Generator(run.device).manual_seed(config.seed))
    return fit(state, batches, step, steps=steps, run=run).model


def log_prob(config: Config, model: Autoregressive, split: Split, device: torch.device) -> Tensor:
    """log p(x | y) of a split's examples, (N,) nats, float64."""
    n = 100 * math.ceil(config.scored / 100)

    def values(x: Tensor, *y: Tensor) -> Tensor:
        x_BCHW, ldj = Scale(model.levels).encode(x.to(device))  # ldj = 0: nothing is dequantised
        return (model.log_prob(x_BCHW, *(each.to(device) for each in y)) + ldj).double().cpu()

    return by_batch(values, split.x[:n], *([split.y[:n]] if config.conditional else []), batch_size=100)


def evaluate(config: Config, model: Autoregressive, run: Run) -> list[Score]:
    """Exact NLL of test and validation images, in nats and in bits per dimension."""
    data, scores = run.uses(load(config.dataset)), []
    for split, suffix in (("test", ""), ("val", "_val")):
        log_p = log_prob(config, model, getattr(data, split), run.device)
        bits = bits_per_dim(log_p, data.dims)
        found = {f"nll{suffix}": (-log_p, "nats"), f"bits_per_dim{suffix}": (bits, "bits/dim")}
        protocol = f"{config.dataset}, {len(log_p)} {split} images{', given the class' * config.conditional}"
        for name, (values, unit) in found.items():
            run.examples[name] = values
            scores.append(mean_score(values, name, unit=unit, kind="exact", split=split, protocol=protocol))
    return scores


def illustrate(config: Config, model: Autoregressive, run: Run) -> None:
    """Uncurated: `samples.png`, 64 draws, with a class a row where it is given; `completions.png`, a test image a row,
    its upper half, and four completions of that."""
    data, half = load(config.dataset), model.image[1] // 2
    generator = torch.Generator(run.device).manual_seed(config.seed + 2)
    y = torch.arange(64, device=run.device) // 8 if config.conditional else None
    plotting.image_grid(model.sample(64, y, generator=generator), run.directory / "samples.png")
    x = Scale(model.levels).encode(data.test.x[:8].to(run.device))[0]
    y = data.test.y[:8].repeat_interleave(4).to(run.device) if config.conditional else None
    ends = model.sample(32, y, generator=generator, known=x[:, :, :half].repeat_interleave(4, 0))
    upper = F.pad(x[:, :, :half], (0, 0, 0, model.image[1] - half), value=0.5)
    rows = torch.cat([x[:, None], upper[:, None], ends.unflatten(0, (8, 4))], 1)
    plotting.image_grid(rows.flatten(0, 1), run.directory / "completions.png", columns=6)


# -- Presets -----------------------------------------------------------------------------------------------------------

DIGITS = {"dataset": "digits", "blocks": 2, "first": 5, "head": 16, "passes": 5}
FASHION = {"dataset": "fashion_mnist", "head": 48, "passes": 0.25, "scored": 2_500}
MNIST = {"features": 32, "blocks": 14, "passes": 100}
CIFAR = {"dataset": "cifar10", "blocks": 14, "head": 1024, "passes": 60}

PRESETS: dict[str, dict[str, Config]] = {
    # Seconds: scikit-learn's 8 x 8 digits, at their 17 levels.
    "smoke": {"pixelcnn": Config("pixelcnn", features=24, **DIGITS), "gated-class": Config(conditional=True, **DIGITS)},
    # Minutes. On MNIST both models have seven layers and, but for 4%, as many weights that are not masked.
    "laptop": {
        "pixelcnn-mnist": Config(model="pixelcnn", features=24, passes=0.8),
        "gated-mnist": Config(passes=0.8),
        "gated-fashion": Config(**FASHION),
        "gated-class-fashion": Config(conditional=True, **FASHION),
    },
    # The papers' sizes, as far as they say; a GPU is wanted.
    "paper": {
        "pixelcnn-mnist": Config(model="pixelcnn", **MNIST),
        "gated-mnist": Config(**MNIST),
        "pixelcnn-cifar10": Config(model="pixelcnn", features=128, **CIFAR),
        "gated-cifar10": Config(features=192, kernel=5, **CIFAR),
    },
}


# -- Probes: an untrained gated model that is given a class, in float64, with weights far from zero --------------------


def tiny(image: tuple[int, int, int], model: type[Autoregressive] = GatedPixelCNN) -> Autoregressive:  # three levels
    torch.manual_seed(0)
    made = model(Config(features=9, blocks=3, first=3, head=12), image, levels=3, classes=2).double()
    for name, parameter in made.named_parameters():
        parameter.data = torch.randn_like(parameter) if ".V." in name else 2 * parameter.data
    return made


def grey_log_prob(codes: Tensor) -> Tensor:
    return tiny((1, 2, 2)).log_prob(codes / 2, torch.ones(len(codes), dtype=torch.int64))


def probe_causality() -> probes.ProbeResult:
    """In the order in which values are read, rows before columns before colours: no leak, and no blind spot."""
    model, y = tiny((3, 2, 3)), torch.arange(16) % 2

    def conditionals(x_BD: Tensor) -> Tensor:
        return model(x_BD.view(16, 2, 3, 3).permute(0, 3, 1, 2), y).permute(0, 3, 4, 2, 1).flatten(1, 3)

    return probes.causality(conditionals, torch.randint(3, (16, 18)).double() / 2)


def probe_cache() -> probes.ProbeResult:
    model, y = tiny((3, 2, 3)), torch.arange(16) % 2
    return probes.cache(*(lambda g, m=m: model.sample(16, y, generator=g, method=m) for m in ("cached", "naive")))


def probe_resume() -> probes.ProbeResult:
    config, cpu = Config("gated", "digits", features=3, blocks=1, first=3, head=4, batch_size=200), torch.device("cpu")
    return probes.resume(lambda directory: train(config, Run(directory, cpu, {}, config.seed, progress=False)))


PROBES = {
    "causality": probe_causality,
    "normalisation": lambda: probes.normalisation(grey_log_prob, shape=(1, 2, 2), levels=3),
    "cache": probe_cache,
    "bits": lambda: probes.bits(Scale(256), bits_per_dim=bits_per_dim),
    "invariance": lambda: probes.invariance(
        probes.per_example(grey_log_prob), torch.ones(5, 4).triu().view(5, 1, 2, 2).double()
    ),
    "resume": probe_resume,
}
