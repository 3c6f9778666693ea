"""Coupling flows: Real NVP of `projects/realnvp` on vectors, against zuko, nflows and normflows.

As many affine couplings, masks that alternate in the same way, batch, dtype and Adam for all. A peer's networks are its
own perceptrons, as deep as ours and so wide that there are as many parameters, as near as can be: all counts are kept.
It is checked that with the same weights nflows' and normflows' coupling layers give our layer's values and
log-determinants, and kept what likelihood each reaches on the same batches. What differs: ours and normflows' have a
network for the scale and one for the translation, as the papers do, zuko's and nflows' have one for both; zuko's and
nflows' bound the scale, and since nflows' can only shrink, it takes longer to learn.
"""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from benchmarks.measure import CPU, Agreement, Result, Row, Setting, Target, take_turns
from common.data import toy
from common.training import sgd_step
from projects.realnvp import realnvp

TURNS = 5
OURS = "projects/realnvp"


@dataclass(frozen=True)
class Size:
    """A row's flow."""

    dims: int
    couplings: int
    hidden: tuple[int, ...]
    batch: int
    draws: int
    steps: int  # a turn


SIZES = {
    "2-D, 8 couplings, 64-64": Size(2, 8, (64, 64), 512, 4096, 15),
    "64-D, 10 couplings, 128": Size(64, 10, (128,), 100, 1000, 15),
    "784-D, 5 couplings, 1024": Size(784, 5, (1024,), 100, 500, 4),  # MAF's Real NVP on MNIST, without its batch norm
}


@dataclass(frozen=True)
class Flow:
    """A candidate: its parameters, log p(x) (B,), and n draws."""

    model: nn.Module
    log_prob: Callable[[Tensor], Tensor]
    sample: Callable[[int], Tensor]

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters() if p.requires_grad)


def ours(size: Size, width: int, device: torch.device = CPU) -> Flow:
    config = realnvp.Config("banana", couplings=size.couplings, hidden=size.hidden, batch_norm="none")
    model = realnvp.RealNVP(config, (size.dims,))
    generator = torch.Generator(device).manual_seed(0)
    return Flow(model, model.log_prob, lambda n: model.sample(n, generator=generator))


def zuko_flow(size: Size, width: int, device: torch.device = CPU) -> Flow:
    import zuko

    hidden = [width] * len(size.hidden)
    model = zuko.flows.RealNVP(size.dims, transforms=size.couplings, hidden_features=hidden)

    def sample(n: int) -> Tensor:
        with torch.no_grad():
            return model().sample((n,))  # type: ignore[no-any-return]

    return Flow(model, lambda x: model().log_prob(x), sample)


def nflows_flow(size: Size, width: int, device: torch.device = CPU) -> Flow:
    from nflows.distributions.normal import StandardNormal
    from nflows.flows.base import Flow as Flow_
    from nflows.nn.nets import MLP
    from nflows.transforms.base import CompositeTransform
    from nflows.transforms.coupling import AffineCouplingTransform

    class Network(MLP):  # type: ignore[misc]
        def __init__(self, ins: int, outs: int) -> None:
            super().__init__([ins], [outs], [width] * len(size.hidden))

        def forward(self, x: Tensor, context: object = None) -> Tensor:  # layers hand it a context
            return super().forward(x)  # type: ignore[no-any-return]

    mask, layers = torch.ones(size.dims), []
    mask[::2] = -1
    for _ in range(size.couplings):
        layers.append(AffineCouplingTransform(mask=mask, transform_net_create_fn=Network))
        mask = -mask
    model = Flow_(CompositeTransform(layers), StandardNormal([size.dims]))

    def sample(n: int) -> Tensor:
        with torch.no_grad():
            return model.sample(n)  # type: ignore[no-any-return]

    return Flow(model, model.log_prob, sample)


def normflows_flow(size: Size, width: int, device: torch.device = CPU) -> Flow:
    import normflows as nf

    b = torch.arange(size.dims).remainder(2).float()
    layers = []
    for _ in range(size.couplings):
        nets = [nf.nets.MLP([size.dims, *[width] * len(size.hidden), size.dims], init_zeros=True) for _ in range(2)]
        layers.append(nf.flows.MaskedAffineFlow(b, *nets))
        b = 1 - b
    model = nf.NormalizingFlow(nf.distributions.DiagGaussian(size.dims, trainable=False), layers)

    def sample(n: int) -> Tensor:
        with torch.no_grad():
            return model.sample(n)[0]  # type: ignore[no-any-return]

    return Flow(model, model.log_prob, sample)


class Make(Protocol):
    def __call__(self, size: Size, width: int, device: torch.device = CPU) -> Flow: ...


CANDIDATES: dict[str, Make] = {
    OURS: ours,
    "zuko RealNVP": zuko_flow,
    "nflows AffineCouplingTransform": nflows_flow,
    "normflows MaskedAffineFlow": normflows_flow,
}
PEERS = {name: name.split()[0] for name in CANDIDATES if name != OURS}
WHY = {  # what keeps ours behind, by dimensions
    2: "Calls count at this size: Real NVP has a network for the scale and one for the translation, as the papers do, "
    "and so twice as many products as nflows, which has one for both.",
    64: "Two networks a layer, as the papers have, where nflows has one for both.",
    784: "Matrix products and Adam are seven tenths of everybody's step; two networks a layer cost the rest.",
}


def matched(make: Make, size: Size, parameters: int, device: torch.device = CPU) -> Flow:
    """The candidate whose number of parameters is nearest."""
    low, high = 1, 16 * max(size.hidden)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if make(size, middle).parameters <= parameters else (low, middle)
    width = min((low, high), key=lambda width: abs(make(size, width).parameters - parameters))
    flow = make(size, width, device)
    flow.model.to(device)
    return flow


def the_layers_agree() -> float:
    """The largest difference of nflows' and normflows' coupling layers from ours, with our weights, in float64."""
    import normflows as nf
    from nflows.transforms.coupling import AffineCouplingTransform

    torch.manual_seed(0)
    b, x = torch.arange(6).remainder(2).float(), torch.randn(50, 6, dtype=torch.float64)
    layer = realnvp.Coupling(b, realnvp.Dense(b, (8,))).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    y, ldj = layer(x)

    class Both(nn.Module):  # nflows asks one network for both, the shift first
        def forward(self, seen: Tensor, context: object = None) -> Tensor:
            return torch.cat([layer.net.t(seen), layer.net.s(seen)], 1)

    class Exponential(AffineCouplingTransform):  # type: ignore[misc]
        def _scale_and_shift(self, both: Tensor) -> tuple[Tensor, Tensor]:
            shift, log_scale = both.chunk(2, 1)
            return log_scale.exp(), shift

    class Part(nn.Module):  # normflows masks: the networks see zeros where ours do not look
        def __init__(self, which: int) -> None:
            super().__init__()
            self.which = which

        def forward(self, masked: Tensor) -> Tensor:
            return layer.net(masked)[self.which]  # type: ignore[no-any-return]

    theirs = [
        Exponential(mask=1 - 2 * b, transform_net_create_fn=lambda *_: Both())(x),
        nf.flows.MaskedAffineFlow(b.double(), Part(1), Part(0))(x),
    ]
    with torch.no_grad():
        return max(float((a - b).abs().max()) for pair in theirs for a, b in zip(pair, (y, ldj), strict=True))


def trained(flow: Flow, steps: int = 300) -> float:
    """How many nats the mean log-density of fresh points of a banana falls short of the true one's, after so many
    steps on others."""
    data, generator = toy.density("banana"), torch.Generator().manual_seed(0)
    adam = torch.optim.Adam(flow.model.parameters(), lr=2e-3, fused=True)
    for _ in range(steps):
        sgd_step(lambda x: (-flow.log_prob(x).mean(), {}), adam, data.sample(512, generator).float())
    x = data.sample(20_000, generator)
    with torch.no_grad():
        return float((data.log_prob(x) - flow.log_prob(x.float())).mean())


def main(setting: Setting) -> Result:
    device = setting.device
    what = "largest difference of a coupling layer with the same weights, float64"
    agreement = Agreement(what, the_layers_agree(), 1e-12)
    found = Result("flows_peers", "Real NVP on vectors: training steps, and draws", device=device)
    for title, size in list(SIZES.items())[: setting.size(len(SIZES), 1)]:
        torch.manual_seed(0)
        parameters = ours(size, 0).parameters
        flows = {name: matched(make, size, parameters, device) for name, make in CANDIDATES.items()}
        for name, flow in flows.items():
            found.notes[f"parameters, {title}, {name}"] = f"{flow.parameters:,}"
        x = torch.randn(size.batch, size.dims, device=device)
        steps = setting.size(size.steps, 1)

        def train(flow: Flow, adam: torch.optim.Adam, x: Tensor = x, steps: int = steps) -> int:
            for _ in range(steps):
                sgd_step(lambda x: (-flow.log_prob(x).mean(), {}), adam, x)
            return steps

        def draw(flow: Flow, size: Size = size) -> int:
            flow.sample(size.draws)
            return size.draws

        adams = {name: torch.optim.Adam(flow.model.parameters(), 1e-4, fused=True) for name, flow in flows.items()}
        work = {
            "training step": {n: (lambda f=f, a=adams[n], t=train: t(f, a)) for n, f in flows.items()},
            "draws": {n: (lambda f=f, d=draw: d(f)) for n, f in flows.items()},
        }
        for kind, candidates in work.items():
            what = f"batch {size.batch}, Adam" if kind == "training step" else f"{size.draws:,} draws at once"
            row = Row(
                f"{title}, {kind}",
                "steps/s" if kind == "training step" else "draws/s",
                OURS,
                take_turns(candidates, setting.turns(TURNS), device=device),
                {name: package for name, package in PEERS.items() if name in flows},
                f"{size.couplings} affine couplings of {size.dims} dimensions, about {parameters:,} parameters, "
                f"{what}, float32",
                agreement,
                Target(1.0),
                WHY[size.dims],
            )
            found.rows.append(row)
    if not setting.quick:
        plane = SIZES["2-D, 8 couplings, 64-64"]
        for name, make in CANDIDATES.items():
            short = []
            for seed in range(2):
                torch.manual_seed(seed)
                short.append(trained(matched(make, plane, ours(plane, 0).parameters)))
            found.notes[f"nats short of a banana's true density after 300 steps, {name}"] = statistics.mean(short)
    return found
