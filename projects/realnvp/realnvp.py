"""Density estimation using Real NVP. Dinh, Sohl-Dickstein & Bengio, ICLR 2017. https://arxiv.org/abs/1605.08803

An invertible map f from data to noise, whose Jacobian has a cheap determinant, gives an exact density. A coupling layer
changes one part of x by numbers computed from the other, which it leaves alone: its Jacobian is triangular, the
log-determinant a sum, and s and t are arbitrary networks, for inverting needs no inverse of them.

    log p_X(x) = log p_Z(f(x)) + log |det df(x)/dx|            p_Z = N(0, I)
    y = b x + (1 - b) (x exp(s(b x)) + t(b x))                 x = b y + (1 - b) (y - t(b y)) exp(-s(b y))

Such layers with alternating masks b, batch normalisation as a layer of the flow, and scales, at each of which half of
the variables are "factored out", make the model. With dense networks, on vectors, it is the Real NVP of Papamakarios,
Pavlakou & Murray 2017, "MAF" here. Sections and equations are the paper's.

Notation     here           shape                 paper
             x, y, h        (B, C, H, W), (B, D)  x, y, h^(i): values, and what is left of them at a scale
             z              (B, D)                z = (z^(1), ..., z^(L)): latent variables
             b              (C, H, W), (D,)       b: 1 where a coupling layer changes nothing
             s, t           as x                  s, t: log-scale and translation
             ldj            (B,)                  log |det dy/dx|, nats
             mu, var        (C,), (D,)            mean and variance of batch normalisation
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Adam

from common import plotting, probes
from common.data import Batch, Batches, Compose, Dequantise, Logit, Split, toy
from common.data.continuous import Continuous
from common.distributions import standard_normal_log_prob
from common.errors import ConfigError
from common.evaluation.density import density_scores, log_probs
from common.experiment import Run
from common.nn.chain import Chain, Squeeze
from common.nn.dense import dense
from common.nn.gaussian import Gaussians
from common.nn.resnet import ResNet
from common.plotting_plane import density_picture
from common.probes.instances import jittered, run_in, trained
from common.records import Score
from common.training import State, fit, place, sgd_step
from common.training.early import fit_until_worse

SHAPES = {"mnist": (1, 28, 28), "fashion_mnist": (1, 28, 28), "cifar10": (3, 32, 32), "digits": (1, 8, 8)}


@dataclass(frozen=True)
class Config:
    """One run. The defaults are MAF's for its Real NVP of five layers, but for `hidden` and `l2`: see PRESETS."""

    dataset: Literal["mnist", "fashion_mnist", "cifar10", "digits", "ring8", "checkerboard", "banana"] = "mnist"
    model: Literal["flat", "multiscale", "gaussian", "class_gaussians"] = "flat"
    couplings: int = 5  # flat: coupling layers
    hidden: tuple[int, ...] = (1024,)  # flat: units of each hidden layer of s, and of t
    scales: int = 2  # multiscale: how often half of the variables are factored out
    channels: int = 32  # multiscale: feature maps of the first s and t; each squeezing doubles them
    blocks: int = 2  # multiscale: residual blocks of each s and t
    batch_norm: Literal["none", "batch", "running"] = "batch"  # what training normalises by: see `BatchNorm`
    alpha: float = 1e-6  # of the logit
    noise: Literal["once", "always"] = "once"  # when dequantisation noise of training images is drawn
    step_size: float = 1e-4  # Adam's
    l2: float = 1e-6  # times the sum of squares: of all parameters (flat), of weight normalisation's g (multiscale)
    batch_size: int = 100
    flips: bool = False  # training images also mirrored, by chance
    bf16: bool = False  # s and t in bfloat16 while training; never in evaluation
    steps: int = 1_000_000  # updates, at most
    val_every: int = 500  # updates from one look at the validation examples to the next
    val_examples: int = 10_000
    patience: int = 30  # looks without a better validation log-density before training ends
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("couplings", "channels", "batch_size", "steps", "val_every", "val_examples", "patience"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)}: it must be positive.")
        if self.dataset not in SHAPES and self.model != "flat":
            raise ConfigError(f"model = {self.model}: points in the plane, {self.dataset}, take the flat model only.")


# -- Layers: forward x -> (y, ldj), inverse y -> x ---------------------------------------------------------------------


def checkerboard(C: int, H: int, W: int) -> Tensor:
    """1 where row + column is odd (section 3.4, figure 3)."""
    return (torch.arange(H)[:, None] + torch.arange(W)).remainder(2).float().repeat(C, 1, 1)


def channelwise(C: int, H: int, W: int) -> Tensor:
    """1 in the first half of the channels (section 3.4, figure 3)."""
    return (torch.arange(C) < C // 2).float()[:, None, None].repeat(1, H, W)


class Coupling(nn.Module):
    """Affine coupling layer (eqs. 7 to 9); net: b x -> (s, t), of x's shape each."""

    def __init__(self, b: Tensor, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("b", b, persistent=False)

    def s_and_t(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Both 0 where b = 1: there x exp(s) + t is x."""
        s, t = self.net(self.b * x)
        return (1 - self.b) * s, (1 - self.b) * t

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        s, t = self.s_and_t(x)
        return x * s.exp() + t, s.flatten(1).sum(1)

    def inverse(self, y: Tensor) -> Tensor:
        s, t = self.s_and_t(y)
        return (y - t) * (-s).exp()


class BatchNorm(nn.Module):
    """Batch normalisation, x -> (x - mu) / sqrt(var + eps), as a layer of the flow (section 3.7, appendix E).

    mode: in training, "running" takes averages over recent minibatches, rho mu + (1 - rho) mu_batch, corrected for
    their start as Adam's are; the gradient passes through the present minibatch's part alone (appendix E). "batch"
    takes the present minibatch's (MAF). In evaluation they are buffers: the averages, or what `calibrate` put there.
    affine: exp(log_gamma) and beta follow (MAF).
    """

    eps, rho = 1e-4, 0.9

    def __init__(self, channels: int, mode: str, *, affine: bool) -> None:
        super().__init__()
        self.mode = mode
        self.register_buffer("mu", torch.zeros(channels))
        self.register_buffer("var", torch.ones(channels))
        self.register_buffer("count", torch.zeros(()))
        self.log_gamma, self.beta = (nn.Parameter(torch.zeros(channels), requires_grad=affine) for _ in range(2))

    @staticmethod
    def moments(x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance over examples and pixels: (C,), (C,)."""
        var, mu = torch.var_mean(x, [0, *range(2, x.dim())], correction=0)
        return mu, var

    def statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """mu and var to normalise x by, (C,), (C,)."""
        if not self.training:
            return self.mu, self.var
        mu, var = self.moments(x)
        if self.mode == "running":
            self.count += 1
            share = (1 - self.rho) / (1 - self.rho**self.count)  # of the present minibatch: 1 in the first
            mu, var = torch.lerp(self.mu, mu, share), torch.lerp(self.var, var, share)
            self.mu, self.var = mu.detach(), var.detach()
        return mu, var

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mu, var = self.statistics(x)
        log_scale = self.log_gamma - 0.5 * (var + self.eps).log()
        mu, scale, beta = (each.view(-1, *[1] * (x.dim() - 2)) for each in (mu, log_scale.exp(), self.beta))
        pixels = x[0, 0].numel()  # each of a channel's counts
        return (x - mu) * scale + beta, (pixels * log_scale.sum()).expand(len(x))

    def inverse(self, y: Tensor) -> Tensor:
        scale = (0.5 * (self.var + self.eps).log() - self.log_gamma).exp()
        mu, scale, beta = (each.view(-1, *[1] * (y.dim() - 2)) for each in (self.mu, scale, self.beta))
        return (y - beta) * scale + mu


class Dense(nn.Module):
    """A network with tanh for s, one with ReLU for t (MAF), which begin as 0; b hides their inputs, 1 - b outputs."""

    def __init__(self, b: Tensor, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("seen", b.nonzero().flatten(), persistent=False)
        self.register_buffer("changed", (1 - b).nonzero().flatten(), persistent=False)
        sizes = (len(self.seen), *hidden, len(self.changed))
        self.s, self.t = dense(sizes, nn.Tanh, zero=True), dense(sizes, nn.ReLU, zero=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        seen, zeros = x[:, self.seen], torch.zeros_like(x)
        s, t = (zeros.index_copy(1, self.changed, net(seen).to(x)) for net in (self.s, self.t))
        return s, t


class Convolutional(nn.Module):
    """s and t from one residual network, which is shown the mask; s = scale tanh(.), scale learned (section 4.1)."""

    def __init__(self, b: Tensor, channels: int, blocks: int) -> None:
        super().__init__()
        C = len(b)
        self.register_buffer("b", b[:1], persistent=False)
        self.net = ResNet(C + 1, 2 * C, channels=channels, blocks=blocks)
        self.scale = nn.Parameter(torch.zeros(C, 1, 1))  # at first nothing is scaled

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        s, t = self.net(torch.cat([x, self.b.expand(len(x), -1, -1, -1)], 1)).to(x).chunk(2, 1)
        return self.scale * s.tanh(), t


# -- Model -------------------------------------------------------------------------------------------------------------


class RealNVP(nn.Module):
    """p(x), x (B, *shape). self.f: a chain of layers for each scale; self.parts: the shapes of z^(1), ..., z^(L).

    flat: one chain of dense couplings on vectors, masks odd and even in turn (MAF).
    multiscale (section 3.6): at each scale three couplings by checkerboard, a squeezing and three by channel; half of
    the channels are factored out, the others go on; at the last scale four couplings by checkerboard.
    """

    def __init__(self, config: Config, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape, self.f, self.parts = shape, nn.ModuleList(), []
        flat, channels = config.model == "flat", config.channels

        def couplings(count: int, b: Tensor) -> Chain:
            chain = Chain()
            for _ in range(count):
                chain.append(
                    Coupling(b, Dense(b, config.hidden) if flat else Convolutional(b, channels, config.blocks))
                )
                if config.batch_norm != "none":
                    chain.append(BatchNorm(len(b), config.batch_norm, affine=flat))
                b = 1 - b
            return chain

        self.start = (math.prod(shape),) if flat else shape
        if flat:
            self.parts.append(self.start)
            self.f.append(couplings(config.couplings, torch.arange(*self.start).remainder(2).float()))
            return
        C, H, W = shape
        for _ in range(config.scales):
            if H % 2 or W % 2:
                raise ConfigError(f"scales = {config.scales}: {H} x {W} pixels cannot be halved; use fewer scales.")
            chain = Chain([couplings(3, checkerboard(C, H, W)), Squeeze()])
            C, H, W, channels = 4 * C, H // 2, W // 2, 2 * channels
            self.f.append(chain.append(couplings(3, channelwise(C, H, W))))
            C = C // 2
            self.parts.append((C, H, W))
        self.f.append(couplings(4, checkerboard(C, H, W)))
        self.parts.append((C, H, W))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x -> z = (z^(1), ..., z^(L)) (B, D), ldj (eqs. 13 to 16)."""
        h, z, ldj = x.view(len(x), *self.start), [], 0.0
        for i, f in enumerate(self.f, start=1):
            h, more = f(h)
            ldj = ldj + more
            factored_out, h = h.chunk(2, 1) if i < len(self.f) else (h, None)
            z.append(factored_out.flatten(1))
        return torch.cat(z, 1), ldj

    def inverse(self, z: Tensor) -> Tensor:
        pieces = z.split([math.prod(part) for part in self.parts], 1)
        *factored_out, h = (piece.view(-1, *part) for piece, part in zip(pieces, self.parts, strict=True))
        for f in reversed(self.f):
            h = f.inverse(h)
            if factored_out:
                h = torch.cat([factored_out.pop(), h], 1)
        return h.view(-1, *self.shape)

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x) = log N(z; 0, I) + ldj (eq. 3): (B, *shape) -> (B,) nats, exact."""
        z, ldj = self(x)
        return standard_normal_log_prob(z) + ldj

    @torch.no_grad()
    def sample(self, n: int, *, temperature: float = 1.0, generator: torch.Generator) -> Tensor:
        """n draws (n, *shape): the inverse of z from N(0, temperature^2 I); 1 gives draws from p."""
        weight = next(self.parameters())
        z = torch.randn(n, math.prod(self.shape), generator=generator, device=weight.device, dtype=weight.dtype)
        return self.inverse(temperature * z)

    @torch.no_grad()
    def calibrate(self, x: Tensor) -> None:
        """flat: make every mu and var those of the examples x, of the training set (as MAF does for a test)."""
        h = x.flatten(1)
        for layer in self.f[0]:
            if isinstance(layer, BatchNorm):
                layer.mu, layer.var = layer.moments(h)
            h = torch.cat([layer.eval()(part)[0] for part in h.split(2000)])

    @torch.no_grad()
    def manifold(self, x: Tensor, angles: Tensor) -> Tensor:
        """Between four examples x (4, *shape) on circles through their latents, K angles a circle: (K, K, *shape).

        z = cos(p) (cos(q) z1 + sin(q) z2) + sin(p) (cos(q) z3 + sin(q) z4), p and q each of the angles (eq. 19).
        """
        z, cos, sin = self(x)[0], angles.cos()[:, None], angles.sin()[:, None]
        grid = cos[:, None] * (cos * z[0] + sin * z[1]) + sin[:, None] * (cos * z[2] + sin * z[3])  # (K, K, D)
        return self.inverse(grid.flatten(0, 1)).unflatten(0, grid.shape[:2])


# -- Training and evaluation -------------------------------------------------------------------------------------------


def build(config: Config) -> RealNVP | Gaussians:
    """The untrained model, initialised from the configuration's seed."""
    torch.manual_seed(config.seed)
    shape, components = SHAPES.get(config.dataset, (2,)), {"gaussian": 1, "class_gaussians": 10}
    return Gaussians(shape, components[config.model]) if config.model in components else RealNVP(config, shape)


def descent(config: Config, model: RealNVP) -> Adam:
    """Adam, with the gradient of l2 times the sum of squares of what it is to keep small."""
    small, free = [], []
    for name, parameter in model.named_parameters():
        (small if config.model == "flat" or name.endswith("original0") else free).append(parameter)
    return Adam([{"params": small, "weight_decay": 2 * config.l2}, {"params": free}], lr=config.step_size)


def train(config: Config, run: Run) -> RealNVP | Gaussians:
    """Maximum likelihood, until the validation log-density has not improved for long."""
    data = Continuous(config.dataset, config.alpha, run.data)
    model = place(build(config), run.device, channels_last=config.model == "multiscale")
    x_train, x_val = (data.split(name)[0].to(run.device) for name in ("train", "val"))
    if isinstance(model, Gaussians):  # in closed form: a single update, from all examples

        def solve(state: State, x: Tensor) -> dict[str, Tensor]:
            model.fit(x, data.images.train.y if len(model.mean) > 1 else None)
            return {"loss": -log_probs(model, x, run.device).mean()}

        fit(State(model, {}, torch.Generator()), lambda _: x_train, solve, steps=1, run=run)
        return model

    once, by_batch, optimizer = config.noise == "once", config.batch_norm == "batch", descent(config, model)
    split = Split(x_train) if once else data.images.train
    batches = Batches(split, config.batch_size, seed=config.seed, device=run.device)

    def step(state: State, batch: Batch) -> dict[str, Tensor]:
        model.train()
        x = batch.x
        if config.flips:
            chance = torch.rand(len(x), 1, 1, 1, generator=state.generator, device=x.device)
            x = torch.where(chance < 0.5, x.flip(3), x)
        if not once:
            x, _ = data.preprocess.encode(x, state.generator)
        return sgd_step(lambda x: (-model.log_prob(x).mean(), {}), optimizer, x, amp="bf16" if config.bf16 else None)

    def measure() -> float:
        if by_batch:
            model.calibrate(x_train[: config.val_examples])
        return float(log_probs(model, x_val[: config.val_examples], run.device).mean())

    state = State(model, {"adam": optimizer}, torch.Generator(run.device).manual_seed(config.seed))
    limits = {"every": config.val_every, "patience": config.patience, "steps": config.steps}
    fit_until_worse(state, batches, step, measure, **limits, run=run, name="val_log_density")
    if by_batch:
        model.calibrate(x_train)
    return model


def evaluate(config: Config, model: RealNVP | Gaussians, run: Run) -> list[Score]:
    """Log-density of test and validation examples in the model's space, bits per dimension of images."""
    data = Continuous(config.dataset, config.alpha, run.data)
    scores, values = density_scores(model, data, run.device, val_examples=config.val_examples)
    run.examples |= values
    return scores


def illustrate(config: Config, model: RealNVP | Gaussians, run: Run) -> None:
    """Draws, uncurated: `samples.png`; of points beside the exact density. Of images also draws from the same z as the
    temperature falls, row by row, and the manifold between the first four validation examples (figure 6)."""
    data, generator = Continuous(config.dataset, config.alpha), torch.Generator().manual_seed(config.seed)
    model, path = model.cpu().eval(), run.directory / "samples.png"
    if data.density is not None:
        density_picture(path, data.density, model.log_prob, model.sample(5000, generator=generator))
        return

    def show(x: Tensor, name: str, columns: int) -> None:
        plotting.image_grid(data.preprocess.decode(x), run.directory / name, columns)

    show(model.sample(64, generator=generator), "samples.png", 8)
    if isinstance(model, RealNVP):
        rows = [model.sample(10, temperature=t, generator=generator.manual_seed(1)) for t in (1.0, 0.9, 0.8, 0.7, 0.5)]
        show(torch.cat(rows), "temperatures.png", 10)
        between = model.manifold(data.split("val")[0][:4], torch.linspace(0, math.pi / 2, 8))
        show(between.flatten(0, 1), "manifold.png", 8)


# -- Presets -----------------------------------------------------------------------------------------------------------

IMAGES = {"model": "multiscale", "batch_norm": "running", "alpha": 0.05, "noise": "always"}
IMAGES |= {"step_size": 1e-3, "l2": 5e-5, "batch_size": 64}
SMALL = IMAGES | {"blocks": 1, "bf16": True, "step_size": 3e-3, "steps": 400, "val_every": 80, "val_examples": 1000}
PLANE = {"couplings": 8, "hidden": (64, 64), "batch_norm": "none", "step_size": 1e-3, "l2": 0.0, "batch_size": 512}
PLANE |= {"steps": 5000, "val_every": 250}
DEEP = {"dataset": "digits", "couplings": 24, "hidden": (64,), "alpha": 0.05, "noise": "always"}
DEEP |= {"step_size": 1e-3, "steps": 1000, "val_every": 100}
BRIEF = {"step_size": 3e-4, "steps": 1200, "val_every": 300, "val_examples": 5000}
GAUSSIANS = {"gaussian": Config(model="gaussian"), "gaussian-classes": Config(model="class_gaussians")}

PRESETS: dict[str, dict[str, Config]] = {
    "smoke": {  # seconds: the 8x8 digits that scikit-learn carries, and a density in the plane
        "digits-flat": Config("digits", hidden=(128,), step_size=1e-3, steps=200, val_every=20),
        "digits-multiscale": Config("digits", scales=1, channels=8, **SMALL | {"steps": 60, "val_every": 20}),
        "banana": Config("banana", **PLANE | {"steps": 200, "val_every": 50}),
    },
    "laptop": GAUSSIANS  # minutes: small networks, few updates
    | {f"realnvp-{n}": Config(couplings=n, **BRIEF) for n in (5, 10)}
    | {"mnist": Config("mnist", channels=16, **SMALL), "mnist-small": Config("mnist", channels=8, **SMALL)}
    | {"fashion": Config("fashion_mnist", channels=16, **SMALL)}
    | {name: Config(name, **PLANE) for name in ("ring8", "checkerboard", "banana")}
    | {"deep": Config(batch_norm="running", **DEEP), "deep-plain": Config(batch_norm="none", **DEEP)},
    "paper": GAUSSIANS  # both papers' settings; this one has no MNIST: its setting for 32 x 32 pixels
    | {f"realnvp-{n}": Config(couplings=n, hidden=(1024, 1024), l2=5e-7) for n in (5, 10)}
    | {"cifar10": Config("cifar10", scales=1, channels=64, blocks=8, flips=True, **IMAGES)}
    | {"mnist": Config("mnist", channels=32, blocks=4, **IMAGES)},
}


# -- Probes ------------------------------------------------------------------------------------------------------------

SMALLEST = {"model": "multiscale", "batch_norm": "running", "scales": 1, "channels": 4, "blocks": 1}
BRIEFEST = {"batch_size": 20, "val_every": 2, "val_examples": 20, "patience": 2, "steps": 8}
BRIEFEST = Config("digits", **IMAGES | SMALLEST | BRIEFEST)


def tiny(shape: tuple[int, ...], **settings: Any) -> RealNVP:
    torch.manual_seed(0)
    return jittered(RealNVP(Config(**{"hidden": (8,), "couplings": 4} | settings), shape))


def probe_bijection() -> probes.ProbeResult:
    model, generator = tiny((2, 4, 6), **SMALLEST), torch.Generator().manual_seed(0)
    x, z = (torch.randn(3, *shape, generator=generator).double() for shape in ((2, 4, 6), (48,)))
    return probes.bijection(model, model.inverse, x, z=z)


def probe_impossible() -> probes.ProbeResult:
    """After a short training on the banana, whose entropy is known; on draws that it has not seen."""
    banana, model = toy.density("banana"), trained(train, Config("banana", **PLANE | {"steps": 150}))
    x = banana.sample(4000, torch.Generator().manual_seed(10))
    return probes.impossible(model.log_prob, x, entropy=banana.entropy, true_log_prob=banana.log_prob)


PROBES = {
    "bijection": probe_bijection,
    "bits": lambda: probes.bits(Compose(Dequantise(), Logit(0.05))),
    "density": lambda: probes.density(tiny((2,), dataset="ring8").log_prob, dims=2, extent=12.0),
    "impossible": probe_impossible,
    "quantise": lambda: probes.quantise(Compose(Dequantise(), Logit(1e-6))),
    "invariance": lambda: probes.invariance(  # the sum of a flat and a multi-scale model's log-densities
        probes.per_example(lambda x: tiny((16,)).log_prob(x.flatten(1)) + tiny((1, 4, 4), **SMALLEST).log_prob(x)),
        torch.eye(16).double()[:9].view(9, 1, 4, 4),
    ),
    # running averages in batch normalisation, new noise in every update, an end that early stopping decides
    "resume": lambda: probes.resume(lambda directory: train(BRIEFEST, run_in(directory, BRIEFEST))),
}
