"""The mathematics of Real NVP, on images of a few pixels, where Jacobians can be written out."""

import dataclasses
import itertools
import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from common import probes
from common.data import Dequantise, Logit, Split, load
from common.errors import ConfigError
from common.nn.chain import Chain, Squeeze
from common.nn.gaussian import Gaussians
from common.probes.instances import jittered, run_in
from projects.realnvp import realnvp
from projects.realnvp.realnvp import (
    DEEP,
    IMAGES,
    PLANE,
    PRESETS,
    BatchNorm,
    Config,
    Convolutional,
    Coupling,
    Dense,
    RealNVP,
    channelwise,
    checkerboard,
    tiny,
)

SHAPE = (2, 4, 6)
MULTI = {"model": "multiscale", "batch_norm": "running"}
TINY = {**MULTI, "scales": 1, "channels": 4, "blocks": 1}


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def log_det(forward, x: Tensor) -> Tensor:
    """log |det| of each example's Jacobian, from autograd."""
    each = []
    for example in x:
        jacobian = torch.autograd.functional.jacobian(lambda v: forward(v[None])[0].flatten(), example)
        each.append(torch.linalg.slogdet(jacobian.reshape(example.numel(), -1)).logabsdet)
    return torch.stack(each)


def convolutional(b: Tensor) -> Coupling:
    return Coupling(b, Convolutional(b, channels=3, blocks=1))


# -- Layers ------------------------------------------------------------------------------------------------------------

LAYERS = {
    "checkerboard": lambda: convolutional(checkerboard(*SHAPE)),
    "the other squares": lambda: convolutional(1 - checkerboard(*SHAPE)),
    "channels": lambda: convolutional(channelwise(*SHAPE)),
    "the other channels": lambda: convolutional(1 - channelwise(*SHAPE)),
    "batch norm": lambda: BatchNorm(2, "running", affine=False),
    "batch norm, affine": lambda: BatchNorm(2, "batch", affine=True),
    "squeeze": Squeeze,
    "a chain": lambda: Chain([convolutional(checkerboard(*SHAPE)), BatchNorm(2, "running", affine=False), Squeeze()]),
}


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_layers_are_inverted_exactly_and_tell_the_jacobians_determinant(layer):
    layer, x = jittered(layer()), noise(3, *SHAPE)
    given = x.clone()
    y, ldj = layer(x)
    assert torch.equal(x, given)
    torch.testing.assert_close(ldj, log_det(lambda v: layer(v)[0], x), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(layer.inverse(y), x, rtol=1e-12, atol=1e-12)


def test_a_coupling_layer_is_equation_9_one_pixel_at_a_time():
    b = checkerboard(*SHAPE)
    layer, x = jittered(convolutional(b)), noise(2, *SHAPE)
    s, t = layer.net(b * x)
    y, _ = layer(x)
    for index in torch.cartesian_prod(*map(torch.arange, x.shape)).tolist():
        n, c, i, j = index
        if (i + j) % 2:
            assert y[n, c, i, j] == x[n, c, i, j]  # to the bit
        else:
            torch.testing.assert_close(y[n, c, i, j], x[n, c, i, j] * s[n, c, i, j].exp() + t[n, c, i, j])
            assert s[n, c, i, j] != 0


@pytest.mark.parametrize("b", [checkerboard(*SHAPE), channelwise(*SHAPE)], ids=["checkerboard", "channels"])
def test_s_and_t_see_nothing_of_what_changes(b):
    layer, x = jittered(convolutional(b)), noise(2, *SHAPE)
    other = b.double() * x + (1 - b.double()) * noise(2, *SHAPE, seed=1)
    for one, two in zip(layer.s_and_t(x), layer.s_and_t(other), strict=True):
        assert torch.equal(one, two)


def test_dense_networks_see_and_change_what_they_should():
    b = torch.tensor([1.0, 0, 1, 0, 1])
    net, x = jittered(Dense(b, (7,))), noise(4, 5)
    hidden = torch.tanh(x[:, [0, 2, 4]] @ net.s[0].weight.T + net.s[0].bias)
    expected = hidden @ net.s[2].weight.T + net.s[2].bias
    s, t = net(x)
    torch.testing.assert_close(s[:, [1, 3]], expected)
    hidden = torch.relu(x[:, [0, 2, 4]] @ net.t[0].weight.T + net.t[0].bias)
    torch.testing.assert_close(t[:, [1, 3]], hidden @ net.t[2].weight.T + net.t[2].bias)
    assert not s[:, [0, 2, 4]].any()
    assert not t[:, [0, 2, 4]].any()


def test_coupling_layers_begin_without_scaling_and_dense_ones_as_the_identity():
    torch.manual_seed(0)
    x = torch.randn(3, *SHAPE)
    _, ldj = convolutional(checkerboard(*SHAPE))(x)
    assert not ldj.any()
    b = torch.tensor([1.0, 0, 1])
    y, _ = Coupling(b, Dense(b, (9,)))(x[:, 0, 0, :3])
    assert torch.equal(y, x[:, 0, 0, :3])


def test_the_scale_of_images_is_a_hyperbolic_tangent_times_a_learned_number():
    net = jittered(Convolutional(checkerboard(*SHAPE), channels=3, blocks=1))
    nn.init.constant_(net.scale, 0.7)
    s, _ = net(100 * noise(5, *SHAPE))
    assert s.abs().max() <= 0.7
    assert s.abs().max() > 0.5


def test_masks_are_those_of_figure_3_and_every_variable_changes_in_turn():
    assert checkerboard(1, 3, 4)[0].tolist() == [[0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1]]
    assert channelwise(4, 1, 1).flatten().tolist() == [1, 1, 0, 0]
    for config, shape in ((Config(couplings=3, hidden=(4,)), (5,)), (Config(**MULTI, channels=2, blocks=0), SHAPE)):
        model = RealNVP(dataclasses.replace(config, scales=1), shape)
        for chain in (m for m in model.modules() if isinstance(m, Chain)):
            masks = [layer.b for layer in chain if isinstance(layer, Coupling)]
            for one, two in itertools.pairwise(masks):
                assert torch.equal(one, 1 - two)


def test_squeezing_makes_channels_of_squares_of_pixels():
    x = noise(2, *SHAPE)
    y, _ = Squeeze()(x)
    assert y.shape == (2, 8, 2, 3)
    for c, i, j, k, l in torch.cartesian_prod(*map(torch.arange, (2, 2, 3, 2, 2))).tolist():
        assert torch.equal(y[:, 4 * c + 2 * k + l, i, j], x[:, c, 2 * i + k, 2 * j + l])


def test_a_mask_by_channels_after_squeezing_is_not_one_of_the_checkerboards():
    for channels in (1, 2, 3, 4):
        black = Squeeze()(checkerboard(channels, 4, 4)[None])[0][0]
        halves = channelwise(*black.shape)
        assert 0 < (black * halves).sum() < black.sum()


# -- Batch normalisation -----------------------------------------------------------------------------------------------


def test_an_untrained_flow_is_sane_in_evaluation_and_evaluation_changes_nothing():
    for model in (RealNVP(Config(**MULTI, scales=1, channels=4, blocks=1), SHAPE), RealNVP(Config(hidden=(8,)), SHAPE)):
        model = model.double().eval()
        before = {name: value.clone() for name, value in model.state_dict().items()}
        x = 50 + 100 * noise(4, *SHAPE)
        z, ldj = model(x)
        assert z.abs().max() < 10 * x.abs().max()
        assert ldj.abs().max() < 1
        model.sample(3, generator=rng())
        assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("mode", ["batch", "running"])
def test_statistics_come_from_the_data_in_training_mode_alone(mode):
    layer, x = BatchNorm(2, mode, affine=False).double(), 3 + 2 * noise(5, *SHAPE)
    layer.eps = 0.0
    y, _ = layer.train()(x)
    torch.testing.assert_close(y.mean((0, 2, 3)), torch.zeros(2).double(), atol=1e-12, rtol=0)
    torch.testing.assert_close(y.square().mean((0, 2, 3)), torch.ones(2).double())
    kept = layer.mu.clone()
    y, _ = layer.eval()(x + 7)
    assert torch.equal(layer.mu, kept)
    torch.testing.assert_close(
        y, x + 7 if mode == "batch" else (x + 7 - layer.mu[:, None, None]) / layer.var[:, None, None].sqrt()
    )


def test_running_averages_weigh_minibatches_as_adam_weighs_gradients():
    layer = BatchNorm(2, "running", affine=False).double().train()
    batches = [noise(3, *SHAPE, seed=i) * (1 + i) + i for i in range(5)]
    for t, x in enumerate(batches, start=1):
        y, ldj = layer(x)
        weights = torch.tensor([layer.rho ** (t - 1 - i) for i in range(t)]).double()
        weights = weights / weights.sum()
        mu = sum(w * each.mean((0, 2, 3)) for w, each in zip(weights, batches, strict=False))
        var = sum(w * each.var((0, 2, 3), correction=0) for w, each in zip(weights, batches, strict=False))
        torch.testing.assert_close(layer.mu, mu)
        torch.testing.assert_close(layer.var, var)
        torch.testing.assert_close(y, (x - mu[:, None, None]) / (var + layer.eps).sqrt()[:, None, None])
        torch.testing.assert_close(ldj, (-0.5 * 24 * (var + layer.eps).log().sum()).expand(3))


def test_the_gradient_goes_through_the_present_minibatch_alone():
    layer = BatchNorm(1, "running", affine=False).double().train()
    layer(noise(4, 1))
    layer(noise(4, 1, seed=1))
    x = noise(4, 1, seed=2).requires_grad_()
    mu, _ = layer.statistics(x)
    (gradient,) = torch.autograd.grad(mu.sum(), x)
    share = (1 - layer.rho) / (1 - layer.rho**3)
    torch.testing.assert_close(gradient, torch.full_like(gradient, share / 4))
    assert not layer.mu.requires_grad


@pytest.mark.parametrize("mode", ["batch", "running"])
def test_a_channel_without_variance_stays_finite(mode):
    layer = BatchNorm(2, mode, affine=True).double().train()
    x = noise(4, *SHAPE)
    x[:, 1] = 5.0
    x.requires_grad_()
    y, ldj = layer(x)
    (y.sum() + ldj.sum()).backward()
    assert y.isfinite().all()
    assert ldj.isfinite().all()
    assert x.grad.isfinite().all()
    torch.testing.assert_close(layer.eval().inverse(layer(x)[0]), x)


def test_calibration_gives_every_layer_the_training_sets_statistics():
    model = jittered(RealNVP(Config(couplings=3, hidden=(6,)), (1, 2, 3)))
    x = 2 + noise(2500, 1, 2, 3)  # more than are looked at together
    model.calibrate(x)
    model.eval()
    h = x.flatten(1)
    for layer in model.f[0]:
        if isinstance(layer, BatchNorm):
            torch.testing.assert_close(layer.mu, h.mean(0))
            torch.testing.assert_close(layer.var, h.var(0, correction=0))
        h, _ = layer(h)
    torch.testing.assert_close(model.train()(x)[0], h)  # with the whole set as one minibatch it is the same


def test_the_bijection_probe_notices_pixels_that_do_not_count(monkeypatch):
    forward = BatchNorm.forward
    x = noise(3, *SHAPE)
    model = tiny(SHAPE, **TINY)
    assert probes.bijection(model, model.inverse, x).passed
    monkeypatch.setattr(
        BatchNorm, "forward", lambda self, x: (forward(self, x)[0], forward(self, x)[1] / x[0, 0].numel())
    )
    assert not probes.bijection(model, model.inverse, x).passed


# -- Model -------------------------------------------------------------------------------------------------------------

MODELS = {
    "multi-scale": lambda: tiny(SHAPE, **TINY),
    "three channels": lambda: tiny((3, 2, 6), **TINY),
    "odd at the last scale": lambda: tiny((1, 6, 10), **TINY),
    "flat images": lambda: tiny((2, 3, 3)),
    "points": lambda: tiny((2,), dataset="ring8"),
}


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_models_are_inverted_exactly_and_log_prob_is_the_change_of_variables(model):
    model = model()
    x = noise(2, *model.shape)
    given = x.clone()
    z, ldj = model(x)
    assert z.shape == (2, math.prod(model.shape))
    torch.testing.assert_close(ldj, log_det(lambda v: model(v)[0], x), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(model.inverse(z), x, rtol=1e-10, atol=1e-10)
    normal = torch.distributions.Normal(0.0, 1.0)
    torch.testing.assert_close(model.log_prob(x), normal.log_prob(z).sum(1) + ldj)
    assert torch.equal(x, given)


def test_images_that_cannot_be_halved_are_refused():
    with pytest.raises(ConfigError, match="3 x 5"):
        RealNVP(Config(**MULTI, scales=2, channels=2, blocks=0), (1, 6, 10))


def test_half_of_the_variables_are_factored_out_at_each_scale():
    config = Config(**MULTI, scales=2, channels=2, blocks=0)
    model = jittered(RealNVP(config, (1, 4, 8)))
    assert model.parts == [(2, 2, 4), (4, 1, 2), (4, 1, 2)]
    x = noise(2, 1, 4, 8)
    h1, ldj1 = model.f[0](x)
    h2, ldj2 = model.f[1](h1[:, 2:])
    h3, ldj3 = model.f[2](h2[:, 4:])
    z, ldj = model(x)
    assert torch.equal(z, torch.cat([h1[:, :2].flatten(1), h2[:, :4].flatten(1), h3.flatten(1)], 1))
    torch.testing.assert_close(ldj, ldj1 + ldj2 + ldj3)
    torch.testing.assert_close(model.inverse(z), x, rtol=1e-10, atol=1e-10)


def test_a_scale_is_three_couplings_a_squeezing_and_three_couplings_and_the_last_is_four():
    model = RealNVP(Config(**MULTI, scales=2, channels=3, blocks=1), (1, 8, 8))
    layers = [m for m in model.modules() if isinstance(m, Coupling | Squeeze)]
    kinds = "".join("s" if isinstance(m, Squeeze) else "c" if 0 < m.b[0].mean() < 1 else "h" for m in layers)
    assert kinds == "cccshhh" * 2 + "cccc"
    features = [m.net.net.blocks[0].layers[0].num_features for m in layers if isinstance(m, Coupling)]
    assert features == [3] * 3 + [6] * 6 + [12] * 7
    assert sum(isinstance(m, BatchNorm) for m in model.modules()) == 16


def test_the_temperature_is_the_standard_deviation_of_the_latents():
    model = tiny(SHAPE, **TINY)
    for temperature in (1.0, 0.5):
        z, _ = model(model.sample(400, temperature=temperature, generator=rng()))
        assert z.std().item() == pytest.approx(temperature, rel=5 / math.sqrt(2 * z.numel()))
    hot, cold = (model(model.sample(5, temperature=t, generator=rng()))[0] for t in (1.0, 0.3))
    torch.testing.assert_close(cold, 0.3 * hot)
    assert model.sample(4, temperature=0.0, generator=rng()).std(0).max() < 1e-12
    assert torch.equal(model.sample(3, generator=rng()), model.sample(3, generator=rng()))


def test_the_manifold_passes_through_its_four_examples_and_is_equation_19_between():
    model, x = tiny(SHAPE, **TINY), noise(4, *SHAPE)
    angles = torch.linspace(0, math.pi / 2, 3, dtype=torch.float64)
    images = model.manifold(x, angles)
    assert images.shape == (3, 3, *SHAPE)
    for corner, example in zip((images[0, 0], images[0, 2], images[2, 0], images[2, 2]), x, strict=True):
        torch.testing.assert_close(corner, example, rtol=1e-9, atol=1e-9)
    z, _ = model(x)
    for i, phi in enumerate(angles.tolist()):
        for j, psi in enumerate(angles.tolist()):
            first, second = (math.cos(psi) * z[k] + math.sin(psi) * z[k + 1] for k in (0, 2))
            expected = model.inverse((math.cos(phi) * first + math.sin(phi) * second)[None])[0]
            torch.testing.assert_close(images[i, j], expected, rtol=1e-9, atol=1e-9)


# -- Training ----------------------------------------------------------------------------------------------------------

QUICK = {"scales": 1, "channels": 2, "blocks": 1, "batch_size": 50, "steps": 4, "val_every": 2, "val_examples": 40}
DIGITS = Config("digits", **IMAGES | QUICK)
FLAT = dataclasses.replace(Config("digits"), couplings=2, hidden=(8,), batch_size=50, steps=4, val_every=2)


def trained(config: Config, directory: Path) -> RealNVP | Gaussians:
    return realnvp.train(config, run_in(directory, config))


def curve(directory: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(("config", "level"), [(DIGITS, 16), (FLAT, 0)], ids=["multi-scale", "flat"])
def test_only_the_validation_split_decides_and_no_test_example_is_looked_at(tmp_path, monkeypatch, config, level):
    """level: of grey, of blank validation images that become less likely as training goes on."""
    data, curves, weights = load("digits"), [], []
    blank, other = (Split(torch.full_like(split.x, level)) for split in (data.test, data.val))
    for i, changes in enumerate(({}, {"test": blank}, {"val": other})):
        changed = dataclasses.replace(data, **changes)
        monkeypatch.setattr("common.data.continuous.load", lambda name, changed=changed: changed)
        weights.append([p.detach() for p in trained(config, tmp_path / str(i)).parameters()])
        curves.append(curve(tmp_path / str(i)))
    assert curves[0] == curves[1]
    assert all(torch.equal(one, two) for one, two in zip(*weights[:2], strict=True))
    assert [max(rows, key=lambda row: row["val_log_density"])["step"] for rows in curves] == [4, 4, 2]
    assert [row["loss"] for row in curves[2]] == [row["loss"] for row in curves[0]]  # training itself is the same
    assert not all(torch.equal(one, two) for one, two in zip(weights[0], weights[2], strict=True))


@pytest.fixture
def batches(monkeypatch):
    """What the updates are given, in order."""
    given, step = [], realnvp.sgd_step
    monkeypatch.setattr(realnvp, "sgd_step", lambda loss, o, x, **k: (given.append(x), step(loss, o, x, **k))[1])
    return given


def test_noise_is_drawn_for_every_update_or_once(tmp_path, batches):
    for mode in ("once", "always"):
        trained(dataclasses.replace(FLAT, noise=mode, batch_size=1297, steps=2), tmp_path / mode)
    once, again, one, two = (batch.flatten(1).sum(1).sort().values for batch in batches)
    assert torch.equal(once, again)  # all images, in another order
    assert not torch.equal(one, two)
    torch.testing.assert_close(once.mean(), one.mean(), rtol=0.05, atol=0)


def test_flips_mirror_about_half_of_the_images(tmp_path, batches):
    trained(dataclasses.replace(DIGITS, flips=True, batch_size=400, steps=1, val_every=1), tmp_path)
    codes = Dequantise(17).decode(Logit(DIGITS.alpha).decode(batches[0]))
    known = {bytes(each.flatten().tolist()) for each in load("digits").train.x}
    straight = [bytes(each.flatten().tolist()) in known for each in codes]
    mirrored = [bytes(each.flip(2).flatten().tolist()) in known for each in codes]
    assert all(one or other for one, other in zip(straight, mirrored, strict=True))
    assert 150 < sum(straight) < 250


def test_the_step_is_adams_with_the_gradient_of_the_stated_sum_of_squares():
    model = RealNVP(dataclasses.replace(DIGITS, l2=0.1), (1, 8, 8))
    kept, free = realnvp.descent(dataclasses.replace(DIGITS, l2=0.1), model).param_groups
    assert {id(p) for p in kept["params"]} == {
        id(m.parametrizations.weight.original0) for m in model.modules() if hasattr(m, "parametrizations")
    }
    assert kept["weight_decay"] == 0.2  # the derivative of 0.1 w^2 is 0.2 w
    assert free["weight_decay"] == 0
    flat = RealNVP(FLAT, (1, 8, 8))
    kept, free = realnvp.descent(FLAT, flat).param_groups
    assert len(kept["params"]) == len(list(flat.parameters()))
    assert (kept["lr"], kept["betas"], free["params"]) == (1e-4, (0.9, 0.999), [])


def test_a_flat_model_ends_with_the_statistics_of_the_whole_training_set(tmp_path):
    model = trained(dataclasses.replace(FLAT, val_examples=40), tmp_path)
    x, _ = realnvp.Continuous("digits", FLAT.alpha).split("train")
    first = model.f[0][0](x.flatten(1))[0]
    torch.testing.assert_close(model.f[0][1].mu, first.mean(0), rtol=1e-4, atol=1e-4)


def test_bfloat16_is_for_training_alone(tmp_path):
    trained(DIGITS, tmp_path / "float32")
    model = trained(dataclasses.replace(DIGITS, bf16=True), tmp_path).eval()
    losses, exact = ([row["loss"] for row in curve(each)] for each in (tmp_path, tmp_path / "float32"))
    assert losses != exact
    assert losses == pytest.approx(exact, rel=0.01)
    assert all(value.dtype in (torch.float32, torch.int64) for value in model.state_dict().values())
    x, _ = realnvp.Continuous("digits", DIGITS.alpha).split("val")
    best = max(row["val_log_density"] for row in curve(tmp_path))
    exact = model.double().log_prob(x[:40].double()).mean().item()
    assert exact == pytest.approx(best, abs=1e-3)


# -- Evaluation --------------------------------------------------------------------------------------------------------


def test_scores_are_log_density_in_the_models_space_and_bits_of_the_codes(tmp_path):
    config = Config("digits", "gaussian")
    model, run = trained(config, tmp_path), run_in(tmp_path, Config())
    scores = {score.name: score for score in realnvp.evaluate(config, model, run)}
    x, ldj = realnvp.Continuous("digits", 1e-6).split("test")
    log_p = model.log_prob(x)
    assert scores["log_density"].value == pytest.approx(log_p.mean().item())
    assert scores["bits_per_dim"].value == pytest.approx(-(log_p + ldj).mean().item() / (64 * math.log(2)))
    assert {(s.name, s.split, s.kind, s.unit, s.n) for s in scores.values()} == {
        ("log_density", "test", "exact", "nats", 300),
        ("log_density_val", "val", "exact", "nats", 200),
        ("bits_per_dim", "test", "bound", "bits/dim", 300),
        ("bits_per_dim_val", "val", "bound", "bits/dim", 200),
    }
    assert list(run.data) == ["digits"]
    torch.testing.assert_close(run.examples["log_density"], log_p)


def test_the_gaussians_of_classes_are_fitted_to_their_classes(tmp_path):
    model = trained(Config("digits", "class_gaussians"), tmp_path)
    x, _ = realnvp.Continuous("digits", 1e-6).split("train")
    threes = x[load("digits").train.y == 3].flatten(1).double()
    torch.testing.assert_close(model.mean[3], threes.mean(0))
    assert len(model.mean) == 10


def test_pictures_are_of_the_models_own_draws(tmp_path, monkeypatch):
    shown = {}
    monkeypatch.setattr(
        realnvp.plotting, "image_grid", lambda x, path, columns: shown.update({path.name: (x, columns)})
    )
    config = DIGITS
    model = realnvp.build(config)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    realnvp.illustrate(config, model, run_in(tmp_path, Config()))
    preprocess = realnvp.Continuous("digits", config.alpha).preprocess
    expected = model.eval().sample(64, generator=rng(config.seed))
    assert torch.equal(shown["samples.png"][0], preprocess.decode(expected))
    rows = shown["temperatures.png"][0].unflatten(0, (5, 10))
    cold = model.sample(10, temperature=0.5, generator=rng(1))
    assert torch.equal(rows[4], preprocess.decode(cold))
    corners = shown["manifold.png"][0][[0, 7, 56, 63]]
    assert torch.equal(corners, load("digits").val.x[:4])


def test_points_are_drawn_beside_the_exact_density(tmp_path):
    config = Config("banana", **PLANE | {"hidden": (4,)})
    realnvp.illustrate(config, realnvp.build(config), run_in(tmp_path, Config()))
    assert (tmp_path / "samples.png").stat().st_size > 10_000


# -- Settings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong", [{"couplings": 0}, {"steps": 0}, {"patience": 0}, {"dataset": "ring8", "model": "multiscale"}]
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ConfigError):
        Config(**wrong)


def test_runs_that_are_compared_differ_in_what_is_claimed_alone():
    laptop = PRESETS["laptop"]
    assert dataclasses.replace(laptop["mnist-small"], channels=laptop["mnist"].channels) == laptop["mnist"]
    assert laptop["mnist-small"].channels < laptop["mnist"].channels
    assert dataclasses.replace(laptop["deep-plain"], batch_norm="running") == laptop["deep"]
    assert dataclasses.replace(laptop["realnvp-10"], couplings=5) == laptop["realnvp-5"]
    assert laptop["gaussian"].alpha == laptop["realnvp-5"].alpha == 1e-6


def test_a_configuration_survives_a_record():
    for config in (config for runs in PRESETS.values() for config in runs.values()):
        again = Config(**json.loads(json.dumps(dataclasses.asdict(config))))
        assert dataclasses.replace(again, hidden=tuple(again.hidden)) == config
    assert DEEP["couplings"] >= 20


class WeightsOnMeta(TorchFunctionMode):
    """The weights of layers take no memory; masks, which decide about shapes, are real."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}) | ({"device": "meta"} if func is torch.empty else {}))


def test_every_preset_can_be_built():
    def numbers(config: Config) -> int:
        with WeightsOnMeta():
            return sum(p.numel() for p in realnvp.build(config).parameters())

    size = {(preset, name): numbers(config) for preset, runs in PRESETS.items() for name, config in runs.items()}
    for preset, layers in (("laptop", [392, 1024, 392]), ("paper", [392, 1024, 1024, 392])):
        network = sum(a * b + b for a, b in itertools.pairwise(layers))
        for n in (5, 10):
            assert size[preset, f"realnvp-{n}"] == n * (2 * network + 2 * 784)  # s and t; gamma and beta
    assert size["laptop", "mnist-small"] < size["laptop", "mnist"] < size["paper", "mnist"] < size["paper", "cifar10"]


@pytest.mark.parametrize("name", realnvp.PROBES)
def test_probes_pass(name):
    assert realnvp.PROBES[name]().passed


def test_the_invariance_probe_notices_batch_statistics_within_the_networks_of_images(monkeypatch):
    monkeypatch.setattr(nn.BatchNorm2d, "forward", lambda self, h: functional.batch_norm(h, None, None, training=True))
    assert not realnvp.PROBES["invariance"]().passed
