"""The mathematics of both models, on images small enough to know the answer."""

import dataclasses
import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Categorical

from common import probes
from common.data import Batches, Scale, Split, bits_per_dim, load
from common.errors import ConfigError
from common.experiment import Run
from common.training import EMA, sgd_step
from projects.pixelcnn import pixelcnn
from projects.pixelcnn.pixelcnn import (
    PRESETS,
    Cache,
    Config,
    GatedPixelCNN,
    MaskedConv2d,
    PixelCNN,
    build,
    colours,
    gate,
    tiny,
)

BOTH = pytest.mark.parametrize("kind", [PixelCNN, GatedPixelCNN])
GREY, COLOUR = (1, 4, 5), (3, 3, 4)


def random_images(n: int, image: tuple[int, int, int], levels: int = 3, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(levels, (n, *image), generator=generator).double() / (levels - 1)


def classes(n: int) -> Tensor:
    return torch.arange(n) % 2


def states(image: tuple[int, int, int], levels: int) -> Tensor:
    values = itertools.product(range(levels), repeat=math.prod(image))
    return torch.tensor(list(values), dtype=torch.float64).view(-1, *image) / (levels - 1)


def seed(number: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def as_vectors(model, image):
    """The logits as a function of vectors in the order in which values are read: (B, D) -> (B, D, L)."""
    C, H, W = image

    def conditionals(x_BD: Tensor) -> Tensor:
        x_BCHW = x_BD.view(-1, H, W, C).permute(0, 3, 1, 2)
        return model(x_BCHW, classes(len(x_BD))).permute(0, 3, 4, 2, 1).flatten(1, 3)

    return conditionals


def vectors(n: int, image: tuple[int, int, int]) -> Tensor:
    return random_images(n, image).permute(0, 2, 3, 1).flatten(1)


# -- Masks -------------------------------------------------------------------------------------------------------------


def test_the_mask_of_every_connection_is_the_one_that_the_paper_says():
    for mask in ("A", "B"):
        M = MaskedConv2d(colours(6, 3), colours(9, 3), mask, rows=2, left=1, right=1).M
        for out, into, row, column in itertools.product(range(9), range(6), range(2), range(3)):
            before = row == 0 or column == 0
            at_pixel = row == 1 and column == 1
            colour_out, colour_in = out // 3, into // 2
            seen = before or (at_pixel and (colour_in < colour_out or (mask == "B" and colour_in == colour_out)))
            assert M[out, into, row, column] == seen


def test_both_halves_of_a_gated_layer_have_all_colours():
    assert colours(6, 3).tolist() == [0, 0, 1, 1, 2, 2]
    assert colours(12, 3, halves=2).tolist() == [0, 0, 1, 1, 2, 2] * 2


def full(layer: MaskedConv2d, x: Tensor, own_row: bool = True) -> Tensor:
    """The layer as an ordinary k x k convolution whose filter is zero wherever nothing may be seen."""
    k = 2 * layer.left + 1
    W = x.new_zeros(layer.W.shape[0], layer.W.shape[1], k, k)
    M = torch.ones_like(layer.W) if layer.M is None else layer.M
    bottom = k // 2 + 1 if own_row else k // 2  # the pixel's own row is the last one, or left out
    W[:, :, bottom - layer.rows : bottom, : layer.W.shape[3]] = layer.W * M
    return F.conv2d(x, W, layer.b, padding=k // 2)


def test_pixelcnn_is_the_network_of_the_paper_written_with_ordinary_convolutions():
    model, x = tiny(COLOUR, PixelCNN), random_images(4, COLOUR)
    f = full(model.first, x)
    for block in model.blocks:
        g = f
        for layer in block:
            g = full(layer, g.relu())
        f = f + g
    for layer in model.head:
        f = full(layer, f.relu())
    torch.testing.assert_close(model(x), f.view(4, 3, 3, 3, 4).transpose(1, 2))


def test_gated_pixelcnn_is_the_network_of_the_paper_written_with_ordinary_convolutions():
    model, x, y = tiny(COLOUR), random_images(4, COLOUR), classes(4)
    one_hot = F.one_hot(y, 2).double()
    v = h = x
    for i, layer in enumerate(model.layers):
        first = i == 0
        # The first layer: only rows above, of the image as it is.
        v2 = full(layer.vertical, v, own_row=not first) + (one_hot @ layer.V[0])[..., None, None]
        h2 = full(layer.horizontal, h) + full(layer.link, v2) + (one_hot @ layer.V[1])[..., None, None]
        p = layer.out.W.shape[0]
        v = v2[:, :p].tanh() * v2[:, p:].sigmoid()
        new = full(layer.out, h2[:, :p].tanh() * h2[:, p:].sigmoid())
        h = new if first else h + new
    for layer in model.head:
        h = full(layer, h.relu())
    torch.testing.assert_close(model(x, y), h.view(4, 3, 3, 3, 4).transpose(1, 2))


def test_masked_weights_are_zero_have_no_gradient_and_stay_out_of_everything():
    x, y = random_images(6, COLOUR), classes(6)
    for kind in (PixelCNN, GatedPixelCNN):
        model = tiny(COLOUR, kind)
        masked = [layer for layer in model.modules() if isinstance(layer, MaskedConv2d) and layer.M is not None]
        assert len(masked) > 6
        optimizer, ema = torch.optim.RMSprop(model.parameters(), lr=0.05), EMA(model, 0.5)
        for _ in range(3):
            metrics = sgd_step(lambda b: (-model.log_prob(*b).mean(), {}), optimizer, (x, y), clip=1e9)  # noqa: B023
            ema.update()
            seen = [p.grad if p.dim() < 4 else None for p in model.parameters()]
            seen += [l.W.grad[l.M == 1] if l.M is not None else l.W.grad for l in model.modules() if hasattr(l, "M")]
            norm = torch.cat([g.flatten() for g in seen if g is not None]).norm()
            torch.testing.assert_close(metrics["grad_norm"], norm)
            for layer in masked:
                assert (layer.W.grad[layer.M == 0] == 0).all()
        averaged = dict(ema.model.named_parameters())
        for name, layer in model.named_modules():
            if layer in masked:
                for W in (layer.W, averaged[f"{name}.W"], model.state_dict()[f"{name}.W"]):
                    assert (W[layer.M == 0] == 0).all()
                    assert (W[layer.M == 1] != 0).all()


@BOTH
def test_masked_weights_do_not_matter(kind):
    model, x, y = tiny(COLOUR, kind), random_images(4, COLOUR), classes(4)
    expected = model(x, y)
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, MaskedConv2d) and layer.M is not None:
                layer.W[layer.M == 0] = 100
    assert torch.equal(model(x, y), expected)
    drawn = [model.sample(4, y, generator=seed(), method=m) for m in ("naive", "cached")]
    assert torch.equal(*drawn)


def test_only_parameters_are_saved():
    model = build(Config(dataset="digits"))
    assert set(model.state_dict()) == {name for name, _ in model.named_parameters()}


# -- What sees what ----------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("image", [GREY, COLOUR])
def test_no_value_sees_itself_or_a_later_one(kind, image):
    result = probes.causality(as_vectors(tiny(image, kind), image), vectors(8, image), blind_spots=kind is PixelCNN)
    assert result.passed, result


def unmask(layer: MaskedConv2d, mask: str) -> None:
    """Give the layer a mask that is too generous at the pixel itself, and weights to go with it."""
    M = layer.M.clone()
    M[:, :, -1, layer.left] = 1 if mask == "all" else torch.maximum(M[:, :, -1, layer.left], torch.eye(*M.shape[:2]))
    layer.M = M
    layer.W.data += 0.1


LEAKS = {
    "mask B in the first layer": (COLOUR, PixelCNN, lambda m: unmask(m.first, "all")),
    "mask B in the first layer of the horizontal stack": (
        GREY,
        GatedPixelCNN,
        lambda m: unmask(m.layers[0].horizontal, "all"),
    ),
    "colours out of order in a later layer": (COLOUR, PixelCNN, lambda m: unmask(m.blocks[1][1], "all")),
    "colours out of order in the last layer": (COLOUR, GatedPixelCNN, lambda m: unmask(m.head[1], "all")),
    "a vertical stack that is not moved down": (
        GREY,
        GatedPixelCNN,
        lambda m: setattr(m, "above", lambda x, *a: GatedPixelCNN.above(m, x.roll(-1, 2), *a)),
    ),
}


@pytest.mark.parametrize("leak", LEAKS)
def test_the_causality_probe_notices(leak):
    image, kind, spoil = LEAKS[leak]
    model = tiny(image, kind)
    spoil(model)
    result = probes.causality(as_vectors(model, image), vectors(8, image), blind_spots=True)
    assert "leaks" in result.detail, result


def seen_from(model, image, i: int, j: int) -> Tensor:
    """Which pixels the logits at (i, j) depend on, (H, W) of bool: some derivative is not zero."""
    x = random_images(8, image).requires_grad_()
    logits = model(x, classes(8))[..., i, j]
    weights = torch.randn(logits.shape, generator=seed(), dtype=torch.float64)
    (gradient,) = torch.autograd.grad((logits * weights).sum(), x)
    return (gradient != 0).any(0).any(0)


def deep(kind, image, first: int):
    """As deep as it takes for the receptive field to end only at the image's borders, or at a blind spot."""
    torch.manual_seed(0)
    model = kind(Config(features=6, blocks=8, first=first, head=12), image, 3).double()
    for parameter in model.parameters():
        parameter.data *= 2
    return model


@pytest.mark.parametrize("first", [3, 5, 7])
def test_the_blind_spot_of_pixelcnn_is_a_triangle(first):
    """One row up, filters reach first // 2 columns to the right, and one column more for each further row."""
    H, W = image = (5, 9)
    model = deep(PixelCNN, (1, H, W), first)
    for i, j in ((4, 0), (4, 4), (3, 1), (2, 8)):
        seen = seen_from(model, (1, *image), i, j)
        for r, c in itertools.product(range(H), range(W)):
            before = (r, c) < (i, j)
            blind = r < i and c - j > (i - r) + first // 2 - 1
            assert seen[r, c] == (before and not blind), (i, j, r, c)


@pytest.mark.parametrize("first", [3, 7])
def test_gated_pixelcnn_has_no_blind_spot(first):
    H, W = 5, 8
    model = deep(GatedPixelCNN, (1, H, W), first)
    for i, j in ((4, 0), (4, 4), (3, 7), (2, 1)):
        seen = seen_from(model, (1, H, W), i, j)
        for r, c in itertools.product(range(H), range(W)):
            assert seen[r, c] == ((r, c) < (i, j)), (i, j, r, c)


@BOTH
def test_a_pixel_depends_on_as_many_rows_as_cropping_keeps(kind):
    image = (1, 9, 3)
    torch.manual_seed(0)
    model = kind(Config(features=8, blocks=2, first=5, head=12), image, 3).double()
    seen = seen_from(model, image, 8, 1)
    assert model.reach == 2 + 2
    assert seen.any(1).tolist() == [False] * 4 + [True] * 5


# -- Likelihood --------------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("image", [(1, 2, 2), (2, 1, 2)])
def test_the_probabilities_of_all_images_sum_to_one(kind, image):
    model, x = tiny(image, kind), states(image, levels=3)
    for y in (0, 1):
        total = model.log_prob(x, torch.full((len(x),), y)).exp().sum()
        torch.testing.assert_close(total, torch.tensor(1.0, dtype=torch.float64))


@BOTH
def test_log_prob_is_the_sum_of_the_conditionals_one_value_at_a_time(kind):
    model, x = tiny(COLOUR, kind), random_images(3, COLOUR)
    C, H, W = COLOUR
    for n, y in enumerate(classes(3)):
        log_p = 0.0
        for i, j, c in itertools.product(range(H), range(W), range(C)):
            known = x[n : n + 1].clone()
            known[:, c:, i, j] = 0.5  # what comes later must not matter
            known[:, :, i, j + 1 :] = 1.0
            known[:, :, i + 1 :] = 0.0
            logits = model(known, y[None])[0, :, c, i, j]
            log_p = log_p + Categorical(logits=logits).log_prob((2 * x[n, c, i, j]).long())
        torch.testing.assert_close(model.log_prob(x[n : n + 1], y[None])[0], log_p)


def test_uniform_bytes_under_the_uniform_model_score_eight_bits_per_dimension():
    config = Config(dataset="fashion_mnist", features=4, blocks=1, head=4)
    model = build(config)
    for parameter in model.head[1].parameters():
        parameter.data.zero_()
    x = torch.randint(256, (7, 1, 28, 28), dtype=torch.uint8, generator=seed())
    bits = bits_per_dim(pixelcnn.log_prob(config, model, Split(x), torch.device("cpu")), 784)
    torch.testing.assert_close(bits, torch.full((7,), 8.0, dtype=torch.float64), rtol=0, atol=1e-5)


def test_every_byte_is_scored_as_itself():
    model = build(Config(dataset="fashion_mnist", features=4, blocks=1, head=4))
    for parameter in model.head[1].parameters():
        parameter.data.zero_()
    logits = torch.linspace(-3, 3, 256)
    model.head[1].b.data = logits.clone()
    images = torch.arange(256, dtype=torch.uint8).view(256, 1, 1, 1).expand(256, 1, 28, 28)
    log_p = model.log_prob(Scale(256).encode(images)[0])
    torch.testing.assert_close(log_p, 784 * logits.log_softmax(0), rtol=1e-4, atol=0)


# -- Classes (Gated, eq. 4) --------------------------------------------------------------------------------------------


def test_a_class_is_told_by_v_alone_and_at_first_not_at_all():
    without, given = build(Config(dataset="digits")), build(Config(dataset="digits", conditional=True))
    shared = without.state_dict()
    assert set(given.state_dict()) - set(shared) == {f"layers.{i}.V.{s}" for i in range(7) for s in range(2)}
    given.load_state_dict(shared, strict=False)
    x, y = random_images(5, (1, 8, 8), 17).float(), torch.arange(5)
    assert torch.equal(given(x, y), without(x))

    given.layers[3].V[1].data[2] = 1.0
    changed = (given(x, y) != without(x)).flatten(1).any(1)
    assert changed.tolist() == [False, False, True, False, False]


# -- Sampling ----------------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("image", [GREY, COLOUR, (1, 9, 4)])
@pytest.mark.parametrize("known_rows", [0, 2])
def test_all_ways_of_sampling_give_the_same_draws(kind, image, known_rows):
    model, y, start = tiny(image, kind), classes(12), random_images(12, image)
    known = start[:, :, :known_rows] if known_rows else None
    result = [
        model.sample(12, y, generator=seed(), method=method, known=known) for method in ("naive", "cropped", "cached")
    ]
    assert torch.equal(result[0], result[1])
    assert torch.equal(result[0], result[2])
    assert torch.equal(result[0][:, :, :known_rows], start[:, :, :known_rows])
    assert (result[0][:, :, known_rows:] != start[:, :, known_rows:]).any()
    assert set(result[0].unique().tolist()) == {0.0, 0.5, 1.0}


@BOTH
def test_cached_logits_are_those_of_the_whole_image(kind):
    """Closer than draws can tell, and with a first layer that reaches beyond the image."""
    image = (3, 4, 5)
    torch.manual_seed(0)
    model = kind(Config(features=6, blocks=2, first=7, kernel=5, head=6), image, 4).double()
    x = random_images(3, image, 4)
    whole = model(x)
    cache = Cache(model, x, None)
    with torch.no_grad():
        for i, j in itertools.product(range(4), range(5)):
            torch.testing.assert_close(cache.logits(i, j), whole[..., i, j], rtol=0, atol=1e-12)


@BOTH
def test_cached_sampling_never_convolves_an_image(kind, monkeypatch):
    model = tiny(GREY, kind)
    monkeypatch.setattr(MaskedConv2d, "forward", lambda *_: pytest.fail("a whole image was convolved"))
    model.sample(2, classes(2), generator=seed())


@BOTH
def test_the_cache_probe_passes_and_notices_a_window_that_does_not_move(kind, monkeypatch):
    model, y = tiny(COLOUR, kind), classes(8)

    def sampler(method):
        return lambda generator: model.sample(8, y, generator=generator, method=method)

    assert probes.cache(sampler("cached"), sampler("naive")).passed

    def begin_row(self, i):
        before = F.pad(self.x, (0, 0, 1, 0))[:, :, i : i + 1]
        self.i, self.links = i, self.model.above(before, self.y, self.convolve)

    monkeypatch.setattr(Cache, "begin_row", begin_row)
    assert "tokens differ" in probes.cache(sampler("cached"), sampler("naive")).detail


def test_cropping_one_row_too_many_is_noticed():
    image = (1, 8, 3)
    model = tiny(image, GatedPixelCNN)
    naive = model.sample(64, classes(64), generator=seed(), method="naive")
    model.reach -= 3
    assert not torch.equal(model.sample(64, classes(64), generator=seed(), method="cropped"), naive)


@BOTH
def test_draws_follow_the_model(kind):
    image, n = (1, 2, 2), 40_000
    model, x = tiny(image, kind), states((1, 2, 2), 3)
    p = model.log_prob(x, torch.ones(81, dtype=torch.int64)).exp()
    draws = model.sample(n, torch.ones(n, dtype=torch.int64), generator=seed())
    number = (2 * draws).flatten(1).long() @ torch.tensor([27, 9, 3, 1])
    frequency = number.bincount(minlength=81) / n
    assert ((frequency - p).abs() < 5 * (p * (1 - p) / n).sqrt() + 1e-4).all()
    assert p.max() > 3 / 81  # far from uniform


# -- Training, evaluation, figures -------------------------------------------------------------------------------------

DIGITS = Config(dataset="digits", conditional=True, features=4, blocks=1, first=3, head=8, batch_size=400, passes=2)


def run_in(directory, config=DIGITS):
    return Run(directory, torch.device("cpu"), {}, config.seed, progress=False)


def test_training_is_rmsprop_on_the_nll_at_a_rate_that_falls_to_zero(tmp_path):
    model = pixelcnn.train(DIGITS, run_in(tmp_path))
    data, expected = load("digits"), build(DIGITS)
    batches, steps, square = Batches(data.train, 400, seed=0), 6, {}
    for step in range(steps):
        x, y = batches(step)
        loss = -expected.log_prob(x.float() / 16, y).mean()
        gradients = torch.autograd.grad(loss, list(expected.parameters()))
        for p, g in zip(expected.parameters(), gradients, strict=True):
            square[p] = 0.95 * square.get(p, torch.zeros_like(p)) + 0.05 * g**2
            p.data -= DIGITS.learning_rate * (1 - step / steps) * g / (square[p].sqrt() + 1e-8)
    for got, wanted in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-3, atol=2e-5)


def test_training_sees_neither_validation_nor_test_images(tmp_path, monkeypatch):
    config = dataclasses.replace(DIGITS, passes=1)
    expected = pixelcnn.train(config, run_in(tmp_path / "a", config)).state_dict()
    data = load("digits")
    blank = dataclasses.replace(
        data,
        val=Split(torch.zeros_like(data.val.x), torch.zeros_like(data.val.y)),
        test=Split(torch.zeros_like(data.test.x), torch.zeros_like(data.test.y)),
    )
    monkeypatch.setattr(pixelcnn, "load", lambda name: blank)
    found = pixelcnn.train(config, run_in(tmp_path / "b", config)).state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_scores_are_means_over_all_examples_given_their_classes(tmp_path):
    model, data = build(DIGITS), load("digits")
    for layer in model.layers:
        for V in layer.V:
            V.data.normal_(generator=seed())
    run = run_in(tmp_path)
    scores = {score.name: score for score in pixelcnn.evaluate(DIGITS, model, run)}
    assert set(scores) == {"nll", "bits_per_dim", "nll_val", "bits_per_dim_val"}
    with torch.no_grad():
        log_p = model.log_prob(data.test.x.float() / 16, data.test.y)
    assert scores["nll"].value == pytest.approx(-float(log_p.mean()), rel=1e-5)
    assert scores["nll"].n == len(data.test) == 300
    assert scores["bits_per_dim"].value == pytest.approx(scores["nll"].value / 64 / math.log(2))
    assert "given the class" in scores["nll"].protocol
    assert scores["nll_val"].split == "val"


def test_figures_have_uncurated_draws_and_completions(tmp_path):
    run = run_in(tmp_path)
    pixelcnn.illustrate(DIGITS, build(DIGITS), run)
    assert {path.name for path in tmp_path.iterdir()} == {"samples.png", "completions.png"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kernel": 4}, "odd width"),
        ({"first": 1}, "first = 1"),
        ({"blocks": 0}, "blocks = 0"),
        ({"passes": 0.0}, "passes = 0"),
        ({"dataset": "cifar10", "features": 2}, "give 3 or more"),
        ({"dataset": "binarized_mnist", "conditional": True}, "a data set with classes"),
        ({"dataset": "digits", "model": "pixelcnn", "conditional": True}, "gated model"),
    ],
)
def test_configurations_that_cannot_be_are_refused(change, words):
    with pytest.raises(ConfigError, match=words):
        Config(**change)


def test_models_that_are_compared_have_equal_depth_and_nearly_as_many_weights():
    plain, gated = (build(PRESETS["laptop"][run]) for run in ("pixelcnn-mnist", "gated-mnist"))
    live = [sum(int((p != 0).sum()) for p in model.parameters()) for model in (plain, gated)]
    assert abs(live[0] / live[1] - 1) < 0.05
    assert plain.reach == gated.reach
    assert len(plain.blocks) + 1 == len(gated.layers)


def test_the_gate_is_tanh_times_sigmoid():
    y = torch.randn(2, 6, 1, 1, generator=seed())
    torch.testing.assert_close(gate(y), y[:, :3].tanh() * y[:, 3:].sigmoid())


@pytest.mark.parametrize("name", pixelcnn.PROBES)
def test_probes_pass(name):
    result = pixelcnn.PROBES[name]()
    assert result.passed, result
