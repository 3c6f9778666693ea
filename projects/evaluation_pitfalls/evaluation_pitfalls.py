"""A note on the evaluation of generative models. Theis, van den Oord & Bethge, ICLR 2016. https://arxiv.org/abs/1511.01844

Scores that mislead, each where the truth is known. The note's own demonstrations come first; those of later papers are
about distances between samples. A run is one side of one comparison: `Config.demonstration` names the function below
that makes its scores, `Config.side` the side.

    likelihood   99 % of noise costs at most log 100 nats; stored images are perfect samples     Theis et al., 3.2
    parzen       cluster centres beat data by Parzen windows                                     Theis et al., 3.5
    patches      Parzen windows are far from a log-density that is known                         Theis et al., 3.5
    shift        the nearest neighbour of a shifted image is another image                       Theis et al., 3.4
    decoder      annealing finds what a bound and Parzen windows miss           Wu et al. 2017, arXiv 1611.04273
    gaussians    a Fréchet distance falls with n, and ranks wrongly by it       Binkowski et al. 2018, arXiv 1801.01401;
                                                                                Chong & Forsyth 2020, arXiv 1911.07023
    relu         the same n for two models, and still the wrong order           Binkowski et al. 2018
    manifold     what two samples of one distribution score; one outlier        Naeem et al. 2020, arXiv 2002.09797
    resize       resizing without antialiasing is scored as the model's doing   Parmar et al. 2022, arXiv 2104.11222
    split        a memoriser is best against what it has seen                   Meehan et al. 2020, arXiv 2004.05675
    quantise     floor(255 x) makes every image darker

Notation    here          shape        meaning
            x             (B, D)       examples; (N, D) all of a split
            y             (M, D)       samples that stand for a model
            z             (k, B, H)    latent variables of a decoder
            n, m                       numbers of samples and of reference examples
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from common import plotting, probes
from common.data import Batch, Batches, Binarise, Data, Dequantise, load
from common.distributions import standard_normal_log_prob
from common.errors import ConfigError
from common.evaluation import ais, known, mishandled
from common.evaluation.bank import Bank, bank
from common.evaluation.features import lenet, raw_pixels
from common.evaluation.frechet import Moments, frechet_score
from common.evaluation.frechet_bias import distance, extrapolate, fd_score
from common.evaluation.kernels import kid
from common.evaluation.likelihood import importance_log_likelihood, mean_score
from common.evaluation.manifold import manifold_scores
from common.evaluation.memorisation import copying_scores
from common.evaluation.parzen import WIDTHS, k_means, parzen_estimate
from common.experiment import Run
from common.nn.autoencoder import GaussianAutoencoder
from common.nn.bernoulli import BernoulliMixture
from common.nn.gaussian import Gaussians
from common.records import Score
from common.training import State, fit, sgd_step

Scores = list[Score]
NOISE, FLIP = 0.99, 1e-6  # the share of noise; the chance that a bit of a stored image is wrong


@dataclass(frozen=True)
class Config:
    """One run: one side of one demonstration. What a demonstration does not use keeps its default."""

    demonstration: str
    side: str = ""
    dataset: str = ""  # "" where the data are drawn from a known distribution
    n: int = 10_000  # samples that are scored
    m: int = 10_000  # examples of the reference, or test examples
    dims: int = 64  # of a known distribution
    distance: float = 0.0  # the true Fréchet distance of two Gaussians
    k: int = 5  # neighbours; samples of z in a bound
    shift: int = 0  # pixels
    repetitions: int = 1  # independent draws, over which a score is averaged
    components: int = 100  # of a mixture; windows
    passes: int = 10  # of expectation-maximisation, of k-means, of training
    hidden: tuple[int, ...] = (64, 256)  # units of the decoder's layers; the encoder has two of the last
    latents: int = 10
    chains: int = 8
    temperatures: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        if self.demonstration not in DEMONSTRATIONS:
            raise ConfigError(f"demonstration = '{self.demonstration}': there are {', '.join(DEMONSTRATIONS)}.")
        if self.side not in (sides := DEMONSTRATIONS[self.demonstration][1]):
            raise ConfigError(f"side = '{self.side}': '{self.demonstration}' has {', '.join(map(repr, sides))}.")
        for name in ("n", "m", "dims", "k", "repetitions", "components", "passes", "latents", "chains", "temperatures"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)}: it is at least 1.")


def seeded(config: Config, purpose: int) -> torch.Generator:
    """Random numbers for one purpose, whatever others have drawn."""
    return torch.Generator().manual_seed(1000 * config.seed + purpose)


# -- Likelihood and the look of samples have little to do with each other (Theis et al., section 3.2) ------------------


def as_bits(data: Data) -> list[Tensor]:
    """Training and test examples (N, D) of {0, 1}; grey ones are drawn once and for all."""
    encode, generator = Binarise(data.levels or 2).encode, torch.Generator().manual_seed(0)
    return [encode(split.x.flatten(1), generator)[0] for split in (data.train, data.test)]


def likelihood(config: Config, model: nn.Module, run: Run) -> Scores:
    """The exact NLL of test images; a Fréchet distance of samples from them; and whether samples are copies.

    Of a mixture of Bernoullis; of the same under 99 % of noise; of a table of the training images.
    """
    assert isinstance(model, BernoulliMixture)
    data = run.uses(load(config.dataset))
    train, test = as_bits(data)
    q = BernoulliMixture.around(train, FLIP) if config.side == "lookup" else model
    q = q.with_noise(NOISE) if config.side == "noisy" else q
    run.examples["nll"] = nll = -q.log_prob(test)
    what = f"{data.name} as bits, {len(test)} test examples"
    scores = [mean_score(nll, "nll", unit="nats", kind="exact", split="test", protocol=what)]
    if config.side == "noisy":
        cost = float((nll + model.log_prob(test)).max())
        scores += [Score("nll_cost", cost, None, 1, "nats", "exact", "test", "raw", f"the largest one, {what}")]
    bits, white = q.sample(config.n, generator=seeded(config, 2)), 16 if data.name == "digits" else 255
    codes, stored, real = ((x * white).to(torch.uint8).view(-1, *data.test.x.shape[1:]) for x in (bits, train, test))
    model.pictures = bits
    return [*scores, *scored(codes, stored, real, data, config, "all as bits")]


def scored(y: Tensor, train: Tensor, heldout: Tensor, data: Data, config: Config, how: str) -> Scores:
    """Fréchet distances of samples from held-out and from training images, and a test whether they are nearer to these.

    The features are those of a network trained on grey MNIST; of digits they are the pixels.
    """
    see = raw_pixels((1, 8, 8), data.levels or 256) if data.name == "digits" else lenet("mnist")
    samples, seen = bank(see, y, source="samples", split=""), bank(see, train, source="training images", split="train")
    new = bank(see, heldout, source="test images", split="test")
    fd = [fd_score(samples, real, generator=seeded(config, 1), protocol=how) for real in (new, seen)]
    return [*fd, *copying_scores(samples, seen, new, protocol=how)]


# -- Parzen windows and nearest neighbours (Theis et al., sections 3.4 and 3.5) ----------------------------------------


def parzen(config: Config, model: nn.Module, run: Run) -> Scores:
    """Test images under windows around real images, and around as many cluster centres of them."""
    data = run.uses(load(config.dataset))
    train, val, test = (s.x.flatten(1) / ((data.levels or 256) - 1) for s in (data.train, data.val, data.test))
    y = train[torch.randperm(len(train), generator=seeded(config, 1))[: config.components]]
    y = k_means(train, y, config.passes) if config.side == "k-means" else y
    found, _ = parzen_estimate(test[: config.m], y, val[:1000])
    run.examples["parzen"], model.pictures = found, y
    how = f"{len(y):,} windows, their width by validation; {data.name} in [0, 1], {len(found)} test examples"
    return [mean_score(found, "parzen", unit="nats", kind="estimate", split="test", protocol=how)]


def patches(config: Config, model: nn.Module, run: Run) -> Scores:
    """Draws from a Gaussian with the moments of 6x6 patches: its log-density, or that of windows around n others."""
    data, p = run.uses(load(config.dataset)), Gaussians((36,))
    x, _ = Dequantise(data.levels or 256).encode(data.train.x[:20_000], seeded(config, 1))
    first = (x.shape[-1] - 6) // 2
    p.fit(x[:, 0, first : first + 6, first : first + 6].flatten(1))
    test, val, y = (p.sample(n, generator=seeded(config, i)) for i, n in enumerate((config.m, 200, config.n), start=2))
    exact = config.side == "exact"
    found = p.log_prob(test) if exact else parzen_estimate(test, y, val, widths=[w / 5 for w in WIDTHS[::2]])[0]
    run.examples["log_density"], model.pictures = found, y
    how = f"a Gaussian with the moments of 6x6 patches of {data.name}, {len(test)} draws"
    kind = "exact" if exact else "estimate"
    return [mean_score(found, "log_density", unit="nats", kind=kind, split="test", protocol=how)]


def shift(config: Config, model: nn.Module, run: Run) -> Scores:
    """Is the training image that is nearest to a shifted training image the one that was shifted?"""
    data = run.uses(load(config.dataset))
    rows = torch.randperm(len(data.train), generator=seeded(config, 1))[: config.n]
    moved = mishandled.shifted(data.train.x[rows], config.shift, seeded(config, 2))
    x_ND = data.train.x.flatten(1).double()  # products of codes, and their sums, are exact
    half = x_ND.square().sum(1) / 2
    nearest = torch.cat([(x.flatten(1).double() @ x_ND.T - half).argmax(1) for x in moved.split(500)])
    run.examples["self_neighbour"] = found = (nearest == rows).double()
    model.pictures = moved[:64, 0] / ((data.levels or 256) - 1)
    how = f"by the Euclidean distance of pixels, {len(rows)} of {data.name}'s train examples"
    return [mean_score(found, "self_neighbour", unit="share", kind="estimate", split="train", protocol=how)]


# -- The likelihood of a decoder (Wu et al. 2017, Table 2) -------------------------------------------------------------


def decoder(config: Config, model: nn.Module, run: Run) -> Scores:
    """log p(x) of test images under one decoder: by annealing, by L_k with its encoder, by Parzen windows.

    And by how much more L_k misses on test images than on training images; and the gap of annealing on simulated data.
    """
    assert isinstance(model, GaussianAutoencoder)
    data = run.uses(load(config.dataset))
    encode = Dequantise(data.levels or 256).encode
    splits = (data.test.x[: config.m], data.train.x[: config.m], data.val.x[:1000])
    x, seen, val = (encode(codes.flatten(1), seeded(config, 1))[0] for codes in splits)
    with torch.no_grad():
        y = model.mean(known.standard_normal(config.n, config.latents, seeded(config, 2)).float())
    model.pictures = y
    p = ais.Decoder(config.latents, model.log_likelihood, model.simulate)
    anneal: dict[str, Any] = {"chains": config.chains, "temperatures": config.temperatures}
    anneal |= {"generator": seeded(config, 4), "progress": "anneal" if run.progress else ""}
    estimates: dict[str, Callable[[Tensor], Tensor]] = {
        "ais": lambda x: ais.ais_log_likelihood(p, x, **anneal).log_p,
        "bound": lambda x: importance_log_likelihood(model.log_weights, x, k=config.k, generator=seeded(config, 3)),
        "parzen": lambda x: parzen_estimate(x, y, val)[0],
    }
    run.examples["log_density"] = found = estimates[config.side](x)
    how = f"{data.name} in [0, 1], a decoder of {config.latents} latent variables, {len(x)} test examples"
    kind = "estimate" if config.side == "parzen" else "bound"
    scores = [mean_score(found, "log_density", unit="nats", kind=kind, split="test", protocol=how)]
    if config.side == "ais":
        missed, of_seen = found - estimates["bound"](x), estimates["ais"](seen) - estimates["bound"](seen)
        growth, error = float(missed.mean() - of_seen.mean()), float(((missed.var() + of_seen.var()) / len(x)).sqrt())
        how = f"annealing less L_{config.k}; {how}, less the same of as many that were trained on"
        scores += [Score("bound_gap_growth", growth, error, len(x), "nats", "estimate", "test", "raw", how)]
        scores += [replace(ais.bdmc_score(ais.bdmc(p, config.m, **anneal)), split="test")]
    return scores


# -- Known distributions (Binkowski et al. 2018; Chong & Forsyth 2020; Naeem et al. 2020) ------------------------------


def gaussians(config: Config, model: nn.Module, run: Run) -> Scores:
    """n samples of N(mean, I) and m of N(0, I), at a Fréchet distance of |mean|^2; and that distance as it is measured.

    Of one distribution and n = m it is d (d + 5) / 2n to first order (`known.expected_frechet`). Extrapolated to
    endless n it has no such bias; the kernel distance has none at any n.
    """
    name, mean = f"gaussian-{config.dims}d", math.sqrt(config.distance / config.dims)

    def draw(generator: torch.Generator) -> dict[str, float]:
        y, x = (known.standard_normal(n, config.dims, generator) for n in (config.n, config.m))
        y, to = y + mean, Moments().add(x)
        found = {f"fd[{name}]": distance(Moments().add(y), to)}
        if config.distance:
            return found | {f"fd_infinity[{name}]": extrapolate(y, to, generator=generator).intercept}
        return found | {f"kid[{name}]": kid(y, x)}

    model.pictures = 0.5 + known.standard_normal(64, config.dims, seeded(config, 1)) / 6
    how = f"samples of a normal distribution in {config.dims} dimensions and the standard one"
    return known.averaged(draw, config.repetitions, seed=1000 * config.seed + 100, protocol=how)


def relu(config: Config, model: nn.Module, run: Run) -> Scores:
    """P1 = relu(N(0, I)) and P2 = relu(N(1, 0.8 S + 0.2 I)), S = 4/d C C^T of a normal C, against Q = relu(N(1, I))."""
    d, one = config.dims, torch.eye(config.dims, dtype=torch.float64)
    C = known.standard_normal(d, d, seeded(config, 1))
    second = known.RectifiedNormal(1.0, 0.8 * (4 / d) * C @ C.T + 0.2 * one)
    p, q = known.RectifiedNormal(0.0, one) if config.side == "p1" else second, known.RectifiedNormal(1.0, one)

    to = q.moments()

    def draw(generator: torch.Generator) -> dict[str, float]:
        found = Moments()
        for y in p.draws(config.n, generator):
            found.add(y)
        return {f"fd[relu-{d}d]": known.frechet_of_moments(*to, found.mean, found.covariance)}

    true = known.frechet_of_moments(*to, *p.moments())
    exact = Score("fd_true", true, None, 1, "squared units", "exact", "test", "raw", "by the distributions' moments")
    model.pictures = next(p.draws(64, seeded(config, 2))) / 4
    how = f"{config.n:,} samples, against Q by its moments"
    return [exact, *known.averaged(draw, config.repetitions, seed=1000 * config.seed + 100, protocol=how)]


def manifold(config: Config, model: nn.Module, run: Run) -> Scores:
    """Precision, recall, density, coverage: of two samples of N(0, I); of N(2, I) against it; and with an outlier each.

    The ball of an outlier among the data, at 3 everywhere, reaches to all samples, and that of one among the samples,
    at -2, to all data. A ball adds at most 1/k to density and 1/m to coverage, to precision and recall as much as 1.
    One k serves all four, as with the authors.
    """
    x = known.standard_normal(config.m, config.dims, seeded(config, 1))
    y = known.standard_normal(config.n, config.dims, seeded(config, 2)) + 2 * (config.side != "same")
    if config.side == "outlier":
        x[-1], y[-1] = 3, -2
    name = f"gaussian-{config.dims}d"
    data, samples = Bank(name, "data", "test").add(x), Bank(name, "samples", "test").add(y)
    model.pictures = 0.5 + y[-64:] / 6
    return manifold_scores(samples, data, k_pr=config.k, k_dc=config.k, generator=seeded(config, 3))


# -- Images: what is done to them before they are scored, and against what (Parmar et al. 2022; Meehan et al. 2020) ----


def resize(config: Config, model: nn.Module, run: Run) -> Scores:
    """Real images as samples, made smaller with antialiasing or without; the reference with it."""
    data = run.uses(load(config.dataset))
    size = data.test.x.shape[-1] * 2 // 7
    samples = mishandled.resized(data.val.x[: config.n], size, antialias=config.side == "antialiased")
    real, see = mishandled.resized(data.test.x, size, antialias=True), raw_pixels((1, size, size))
    model.pictures = samples[:64, 0] / 255
    how = f"real images resized to {size}x{size}"
    return [frechet_score(see, samples, real, split="test", generator=seeded(config, 1), protocol=how)]


def split(config: Config, model: nn.Module, run: Run) -> Scores:
    """A memoriser of n training images, and a model as good as the data, against what was memorised and test images."""
    data = run.uses(load(config.dataset))
    n = min(config.n, len(data.train) // 2)
    seen, unseen = data.train.x[:n], data.train.x[n : 2 * n]
    samples = seen if config.side == "memoriser" else unseen
    model.pictures = samples[:64, 0] / ((data.levels or 256) - 1)
    return scored(samples, seen, data.test.x, data, config, f"the training set has {n:,} images")


def quantise(config: Config, model: nn.Module, run: Run) -> Scores:
    """Images that are off by less than half a level, as bytes again; and how many of 256 codes come back."""
    data = run.uses(load(config.dataset))
    (encode, decode), generator = mishandled.CODECS[config.side], seeded(config, 1)
    codes = data.test.x[: config.n] * (255 // ((data.levels or 256) - 1))
    decoded = decode(encode((codes + torch.rand(codes.shape, generator=generator) - 0.5).clamp(0, 255)))
    model.pictures, see = decoded[:64, 0] / 255, raw_pixels(tuple(codes.shape[1:]))
    found = distance(*(Moments(see.name).add(see(x)) for x in (decoded, codes)))
    level, every = 255 * torch.rand(1000, 1000, generator=generator), torch.arange(256)
    off = (decode(encode(level)).double() - level).mean(1)
    changed = int(decode(encode(every.float())).ne(every).sum())
    words, how = "a million uniform values", f"{len(codes):,} images, off by up to half a level, against themselves"
    broken = Score("codes_broken", changed, None, 256, "codes", "exact", "test", "raw", "each code once, in float32")
    fd = Score(f"fd[{see.name}]", found, None, len(codes), "squared units", "exact", "test", "raw", how)
    return [fd, mean_score(off, "code_bias", unit="levels", kind="estimate", split="test", protocol=words), broken]


DEMONSTRATIONS: dict[str, tuple[Callable[[Config, Any, Run], Scores], tuple[str, ...]]] = {
    "likelihood": (likelihood, ("mixture", "noisy", "lookup")),
    "parzen": (parzen, ("data", "k-means")),
    "patches": (patches, ("exact", "parzen")),
    "shift": (shift, ("",)),
    "decoder": (decoder, ("ais", "bound", "parzen")),
    "gaussians": (gaussians, ("",)),
    "relu": (relu, ("p1", "p2")),
    "manifold": (manifold, ("same", "far", "outlier")),
    "resize": (resize, ("antialiased", "aliased")),
    "split": (split, ("memoriser", "unseen")),
    "quantise": (quantise, ("round", "floor", "signed")),
}


# -- Training: of the mixture and of the decoder; nothing else learns --------------------------------------------------


def build(config: Config) -> nn.Module:
    """The untrained model; an empty one where nothing is learnt."""
    torch.manual_seed(config.seed)
    dims = {"digits": 64}.get(config.dataset, 784)
    if config.demonstration == "likelihood":
        return BernoulliMixture.random(config.components, dims, seeded(config, 0))
    return (
        GaussianAutoencoder(dims, config.latents, config.hidden) if config.demonstration == "decoder" else nn.Module()
    )


def train(config: Config, run: Run) -> nn.Module:
    """Expectation-maximisation, or Adam on the evidence lower bound; on training examples alone."""
    model = build(config)
    if isinstance(model, BernoulliMixture) and config.side != "lookup":
        x_ND, _ = as_bits(run.uses(load(config.dataset)))
        for _ in tqdm(range(config.passes), desc="train", disable=not run.progress):
            model.maximise(x_ND)
    elif isinstance(model, GaussianAutoencoder):
        data = run.uses(load(config.dataset))
        dequantise, adam = Dequantise(data.levels or 256), torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
        batches = Batches(data.train, 100, seed=config.seed)
        state = State(model, {"adam": adam}, torch.Generator().manual_seed(config.seed))

        def step(state: State, batch: Batch) -> dict[str, Tensor]:
            x_BD, _ = dequantise.encode(batch.x.flatten(1), state.generator)
            return sgd_step(lambda x: (-model.log_weights(x, 1, state.generator).mean(), {}), adam, x_BD)

        fit(state, batches, step, steps=config.passes * len(batches), run=run, log_every=len(batches))
    return model


def evaluate(config: Config, model: nn.Module, run: Run) -> Scores:
    """The demonstration's scores."""
    return DEMONSTRATIONS[config.demonstration][0](config, model, run)


def illustrate(config: Config, model: nn.Module, run: Run) -> None:
    """Sixty-four of what was scored, which `evaluate` left with the model; vectors as images."""
    plotting.image_grid(plotting.squares(model.pictures[:64]), run.directory / "samples.png")


# -- Presets -----------------------------------------------------------------------------------------------------------

Runs = dict[str, Config]


def both(demonstration: str, **settings: Any) -> Runs:
    """All sides of a demonstration."""
    return {f"{demonstration}-{s}": Config(demonstration, s, **settings) for s in DEMONSTRATIONS[demonstration][1]}


LAPTOP: Runs = {
    **{f"same-n{n}": Config("gaussians", n=n, m=n, repetitions=10) for n in (500, 2000, 8000)},
    "unequal-near": Config("gaussians", n=1000, m=100_000, distance=0.5, repetitions=10),
    "unequal-far": Config("gaussians", n=10_000, m=100_000, distance=1.0, repetitions=10),
    **both("manifold"),
    "manifold-1000d": Config("manifold", "same", dims=1000),
    **both("resize", dataset="fashion_mnist"),
    **both("split", dataset="mnist"),
    **both("quantise", dataset="fashion_mnist"),
    **{f"shift-{pixels}": Config("shift", dataset="mnist", n=500, shift=pixels) for pixels in (0, 1, 2, 4)},
    **both("patches", dataset="fashion_mnist", n=100_000, m=1000),
    **both("likelihood", dataset="binarized_mnist", n=2000),
    **both("relu", n=50_000, dims=2048, repetitions=2),
    **both("parzen", dataset="mnist", components=10_000, passes=5),
    **both("decoder", dataset="mnist", m=100, k=5000, passes=3, chains=4, temperatures=500),
}
SMALL: dict[str, Any] = {"n": 300, "m": 20, "k": 50, "dims": 8, "components": 20, "passes": 3, "temperatures": 20}
SMOKE = ("likelihood-mixture", "likelihood-noisy", "likelihood-lookup", "decoder-ais", "same-n500", "quantise-signed")
LARGE: dict[str, Any] = {"m": 1000, "passes": 500, "hidden": (64, 256, 256, 1024), "chains": 16, "temperatures": 10_000}

PRESETS: dict[str, Runs] = {
    # Seconds: scikit-learn's digits, and few draws.
    "smoke": {name: replace(c := LAPTOP[name], dataset=c.dataset and "digits", **SMALL) for name in SMOKE},
    # Minutes: all of it.
    "laptop": LAPTOP,
    # What is larger in the papers: the decoder and its annealing, and a million windows.
    "paper": {name: replace(c, **LARGE) for name, c in both("decoder", dataset="mnist", k=5000).items()}
    | both("patches", dataset="fashion_mnist", n=1_000_000, m=1000),
}


# -- Probes ------------------------------------------------------------------------------------------------------------


def probe_impossible() -> probes.ProbeResult:
    """Windows around draws from a Gaussian in the plane cannot be better than that Gaussian."""
    x, y, val = (known.standard_normal(n, 2, torch.Generator().manual_seed(n)) for n in (2000, 1000, 500))
    entropy, true = 1 + math.log(2 * math.pi), standard_normal_log_prob
    return probes.impossible(lambda x: parzen_estimate(x, y, val)[0], x, entropy=entropy, true_log_prob=true)


def probe_bits() -> probes.ProbeResult:
    return probes.bits(Dequantise(256))


def probe_invariance() -> probes.ProbeResult:
    """The mixture's log-probabilities under noise."""
    model = BernoulliMixture.random(5, 8, torch.Generator().manual_seed(0)).with_noise(NOISE)
    return probes.invariance(probes.per_example(model.log_prob), torch.rand(50, 8).round())


PROBES = {"impossible": probe_impossible, "bits": probe_bits, "invariance": probe_invariance}
