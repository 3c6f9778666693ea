"""The mathematics of the three losses, of Algorithm 1 and of its measurements."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from common import probes
from common.data import load
from common.data.centred import Centred
from common.errors import ConfigError
from common.evaluation.critics import dual_values, slopes
from common.experiment import Run
from common.training import State
from projects.wgan_gp import wgan_gp as paper
from projects.wgan_gp.wgan_gp import Config

CPU = torch.device("cpu")
FEW = Config("digits", width=2, latent=3, batch_size=4, n_critic=3, steps=2, log_every=1, samples=100)
DOTS = Config("ring8", width=8, layers=2, latent=2, batch_size=4, n_critic=3, steps=2, samples=100)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def run_in(folder: Path) -> Run:
    folder.mkdir(exist_ok=True)
    return Run(folder, CPU, {}, 0, progress=False)


def playing(config: Config) -> tuple[paper.GAN, State]:
    model = paper.build(config)
    return model, State(model, paper.optimizers(config, model), seeded())


def images(n: int, seed: int = 0) -> Tensor:
    return 2 * torch.rand(n, 1, 8, 8, generator=seeded(seed)) - 1


# -- Gradient penalty (eq. 3) ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("probe", paper.PROBES)
def test_probes(probe: str) -> None:
    result = paper.PROBES[probe]()
    assert result.passed, result


def test_penalty_is_an_examples_own_and_agrees_with_one_jacobian_at_a_time() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 7), nn.Tanh(), nn.Linear(7, 1)).double()
    x, x_fake = torch.randn(2, 5, 2, 2, 3, generator=seeded(), dtype=torch.float64)
    eps = torch.rand(5, 1, 1, 1, generator=seeded(7)).double()
    slow = []
    for b in range(5):
        x_hat = eps[b] * x[b] + (1 - eps[b]) * x_fake[b]
        jacobian = torch.autograd.functional.jacobian(lambda one: network(one[None])[0, 0], x_hat)
        slow.append((math.sqrt(float((jacobian**2).sum())) - 1) ** 2)
    found = paper.gradient_penalty(lambda x: network(x).squeeze(1), x, x_fake, seeded(7))
    assert found.item() == pytest.approx(sum(slow) / 5)


def test_the_critic_learns_from_the_penalty_by_its_exact_derivative() -> None:
    network = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 1)).double()
    x, x_fake = torch.randn(2, 6, 2, generator=seeded(), dtype=torch.float64)
    weight = network[0].weight

    def penalty() -> Tensor:
        return paper.gradient_penalty(lambda x: network(x).squeeze(1), x, x_fake, seeded(3))

    (exact,) = torch.autograd.grad(penalty(), weight)
    for i, j in ((0, 0), (3, 1)):
        values = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                weight[i, j] += step
            values.append(float(penalty().detach()))
            with torch.no_grad():
                weight[i, j] -= step
        assert float(exact[i, j]) == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-5)


def test_a_dead_critic_gets_no_nan() -> None:
    network = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    with torch.no_grad():
        network[0].bias.fill_(-100.0)
    penalty = paper.gradient_penalty(lambda x: network(x).squeeze(1), torch.zeros(4, 2), torch.ones(4, 2), seeded())
    assert penalty.item() == 1
    assert all(
        g.isfinite().all()
        for g in torch.autograd.grad(penalty, list(network.parameters()), allow_unused=True)
        if g is not None
    )


def test_penalised_critic_finds_the_distance_of_a_shift_with_slope_one() -> None:
    """Proposition 1: between x and x - v the best critic has gradient v / |v|, and finds W = |v|."""
    torch.manual_seed(0)
    config, network = Config("ring8", penalty=10.0), paper.mlp(2, 32, 1)
    adam = torch.optim.Adam(network.parameters(), lr=5e-3, betas=(0.0, 0.9))
    v, generator = torch.tensor([0.6, 0.8]), seeded()

    def critic(x: Tensor) -> Tensor:
        return network(x).squeeze(1)

    for _ in range(300):
        x = torch.randn(64, 2, generator=generator)
        adam.zero_grad()
        paper.critic_loss(config, critic, x, x - v, generator)[0].backward()
        adam.step()
    x = torch.randn(2000, 2, generator=generator)
    assert float(slopes(critic, x).mean()) == pytest.approx(1, abs=0.1)
    assert 0.75 < float(dual_values(critic, x, x - v).mean()) <= 1
    assert (critic(x) - critic(x - v)).mean().item() == pytest.approx(1, abs=0.1)


def test_batch_normalisation_makes_the_critic_see_the_batch() -> None:
    with pytest.raises(ConfigError, match="each example by itself"):
        Config("digits", critic_batch_norm=True)
    model = paper.build(dataclasses.replace(FEW, method="clip", critic_batch_norm=True)).double().train()
    result = probes.invariance(probes.per_example(model.critic), images(7).double())
    assert not result.passed, "batch normalisation went unnoticed: this test shows nothing"


# -- Losses (eqs. 1 and 2) ---------------------------------------------------------------------------------------------


def as_logits(x: Tensor) -> Tensor:
    return x[:, 0]


def test_gan_loss_is_eq_1() -> None:
    x, x_fake = torch.randn(2, 6, 1, generator=seeded(), dtype=torch.float64)
    d, d_fake = torch.sigmoid(x[:, 0]), torch.sigmoid(x_fake[:, 0])
    loss, _ = paper.critic_loss(Config(method="gan"), as_logits, x, x_fake, seeded())
    assert float(loss) == pytest.approx(float(-(d.log().mean() + (1 - d_fake).log().mean())))
    undecided = torch.zeros(3, 1)
    assert float(
        paper.critic_loss(Config(method="gan"), as_logits, undecided, undecided, seeded())[0]
    ) == pytest.approx(
        math.log(4)  # where the two distributions are equal
    )


def test_gan_generator_learns_while_the_discriminator_wins() -> None:
    x_fake = torch.full((1, 1), -30.0, requires_grad=True)  # D(x~) = 1e-13
    (gradient,) = torch.autograd.grad(paper.generator_loss(Config(method="gan"), as_logits, x_fake), x_fake)
    assert gradient.item() == pytest.approx(-1)  # log(1 - D) would have 1e-13


def test_wgan_losses_are_eqs_2_and_3() -> None:
    x, x_fake = torch.randn(2, 6, 1, generator=seeded(), dtype=torch.float64)
    loss, extra = paper.critic_loss(Config(method="clip"), as_logits, x, x_fake, seeded())
    assert float(loss) == pytest.approx(float(x_fake.mean() - x.mean()))
    assert extra == {}

    def triple(x: Tensor) -> Tensor:
        return 3 * x[:, 0]

    loss, extra = paper.critic_loss(Config(method="gp", penalty=7.0), triple, x, x_fake, seeded())
    assert float(extra["penalty"]) == pytest.approx(4)
    assert float(loss) == pytest.approx(float(3 * (x_fake.mean() - x.mean())) + 7 * 4)
    for method in ("clip", "gp"):
        assert float(paper.generator_loss(Config(method=method), triple, x_fake)) == pytest.approx(
            -3 * float(x_fake.mean())
        )


# -- Algorithm 1 -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["gp", "clip", "gan"])
def test_one_update_is_n_critic_steps_on_different_examples_and_one_of_the_generator(method: str) -> None:
    config = dataclasses.replace(FEW, method=method)
    model, state = playing(config)
    seen: list[Tensor] = []
    network = model.network.forward

    def watched(x: Tensor) -> Tensor:
        seen.append(x.detach().clone())
        return network(x)

    model.network.forward = watched  # type: ignore[method-assign]
    x = images(12)
    metrics = paper.update(config, model, state, x)
    steps = {name: {int(s["step"]) for s in o.state.values()} for name, o in state.optimizers.items()}
    assert steps == {"critic": {3}, "generator": {1}}
    real = torch.cat([each for each in seen if any(torch.equal(each[0], one) for one in x)])
    assert torch.equal(real, x), "each of the twelve examples is seen once, four a step"
    assert set(metrics) == {"critic_loss", "generator_loss"} | ({"penalty"} if method == "gp" else set())


def largest(network: nn.Module | None) -> float:
    assert network is not None
    return max(p.detach().abs().max().item() for p in network.parameters())


def test_clipping_bounds_every_weight_of_the_critic_and_no_other() -> None:
    config = dataclasses.replace(DOTS, method="clip", c=0.02)
    model, state = playing(config)
    paper.update(config, model, state, torch.randn(12, 2, generator=seeded()))
    assert largest(model.network) == pytest.approx(0.02)
    assert largest(model.generator) > 0.2  # as it began, not clipped and moved on
    model, state = playing(DOTS)
    paper.update(DOTS, model, state, torch.randn(12, 2, generator=seeded()))
    assert largest(model.network) > 0.2


def test_a_fixed_generator_is_data_plus_unit_noise_and_stays_so() -> None:
    config = dataclasses.replace(DOTS, fixed_generator=True)
    model, state = playing(config)
    assert set(state.optimizers) == {"critic"}
    assert "generator_loss" not in paper.update(config, model, state, torch.randn(12, 2, generator=seeded()))
    x = model.sample(40_000, generator=seeded()).double()
    # Data of variance 1 + 0.02^2 / 2 in each coordinate, noise of variance 1.
    assert x.var(0).tolist() == pytest.approx([2, 2], rel=0.03)
    with pytest.raises(ConfigError, match="points"):
        Config("mnist", fixed_generator=True)


@pytest.mark.parametrize("config", [FEW, dataclasses.replace(FEW, method="clip", critic_batch_norm=True), DOTS])
def test_looking_changes_nothing(config: Config, tmp_path: Path) -> None:
    often, never = (
        paper.train(dataclasses.replace(config, log_every=every), run_in(tmp_path / str(every))).state_dict()
        for every in (1, 99)
    )
    assert all(torch.equal(often[name], never[name]) for name in often)


def test_training_sees_no_test_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = load("digits")
    monkeypatch.setattr(paper, "load", lambda name: dataclasses.replace(data, test=None))
    paper.train(FEW, run_in(tmp_path))


def test_the_same_seed_gives_the_same_weights_another_one_others(tmp_path: Path) -> None:
    first, again, other = (
        paper.train(dataclasses.replace(DOTS, seed=seed), run_in(tmp_path / name)).state_dict()["network.0.weight"]
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_initial_weights_depend_on_the_seed_alone() -> None:
    first, again, other = (
        paper.build(dataclasses.replace(DOTS, seed=seed)).state_dict()["network.0.weight"] for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


# -- Data and networks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", paper.MIXTURES)
def test_mixtures_have_deviation_one_but_for_that_of_each_gaussian(name: str) -> None:
    centres, deviation = paper.MIXTURES[name]
    assert centres.mean(0).tolist() == pytest.approx([0, 0], abs=1e-6)
    assert centres.square().mean(0).tolist() == pytest.approx([1, 1], rel=1e-5)
    # gan_toy.py: radius 2 and deviation 0.02; spacing 2 and deviation 0.05. Scaling keeps the ratio.
    closest = torch.pdist(centres).min().item()
    assert deviation / closest == pytest.approx({"ring8": 0.01 / (2 * math.sin(math.pi / 8)), "grid25": 0.025}[name])
    x = paper.POINTS[name](4000, seeded())
    offset = torch.cdist(x, centres).min(1).values
    assert float(offset.square().mean()) == pytest.approx(2 * deviation**2, rel=0.1)


@pytest.mark.parametrize(("dataset", "side"), [("digits", 8), ("mnist", 28)])
def test_images_have_the_datas_size_and_range(dataset: str, side: int) -> None:
    model = paper.build(dataclasses.replace(FEW, dataset=dataset))
    x = model.sample(5, generator=seeded())
    assert x.shape == (5, 1, side, side)
    assert float(x.detach().abs().max()) <= 1
    assert model.critic(x).shape == (5,)
    codes = paper.sample_codes(model, 7, 17, 0)
    assert codes.dtype == torch.uint8
    assert int(codes.max()) <= 16


def test_codes_survive_the_range_of_tanh_and_truncation_would_lose_some() -> None:
    class Truncated(Centred):
        def decode(self, x: Tensor) -> Tensor:
            return ((x + 1) * 127.5).clamp(0, 255).to(torch.uint8)

    assert probes.quantise(Centred(256)).passed
    mistaken = probes.quantise(Truncated(256))
    assert mistaken.numbers["lost"] == pytest.approx(63, abs=20)


def test_samples_do_not_depend_on_how_many_are_drawn_at_a_time() -> None:
    model = paper.build(FEW).eval()
    assert torch.equal(paper.sample_codes(model, 700, 17, 0)[:500], paper.sample_codes(model, 500, 17, 0))


# -- Presets -----------------------------------------------------------------------------------------------------------


def test_the_defaults_are_those_of_algorithm_1() -> None:
    config = Config()
    assert (config.penalty, config.n_critic, config.learning_rate, config.betas) == (10, 5, 1e-4, (0, 0.9))


@pytest.mark.parametrize(
    ("preset", "dataset"),
    [("smoke", "digits"), ("laptop", "mnist"), ("paper", "mnist"), ("paper", "fashion_mnist")],
)
def test_images_are_compared_like_with_like(preset: str, dataset: str) -> None:
    runs = {name: c for name, c in paper.PRESETS[preset].items() if c.dataset == dataset}
    assert set(runs) == {f"{dataset}-{method}" for method in ("gp", "gp-rmsprop", "clip", "gan")}
    for attribute in ("steps", "width", "latent", "batch_size", "seed", "samples"):
        assert len({getattr(config, attribute) for config in runs.values()}) == 1, attribute
    same, clip = runs[f"{dataset}-gp-rmsprop"], runs[f"{dataset}-clip"]
    assert (same.optimizer, same.learning_rate) == (clip.optimizer, clip.learning_rate)
    assert {name: config.n_critic for name, config in runs.items() if config.n_critic != 5} == {f"{dataset}-gan": 1}


@pytest.mark.parametrize("preset", paper.PRESETS)
def test_points_are_compared_like_with_like(preset: str) -> None:
    runs = {name: dataclasses.asdict(config) for name, config in paper.PRESETS[preset].items()}
    pairs = [(name, name.removesuffix("clip") + "gp") for name in runs if name.endswith("-clip")]
    for a, b in pairs:
        if runs[a]["dataset"] in paper.POINTS:
            differ = {setting for setting, value in runs[a].items() if value != runs[b][setting]}
            assert differ == {"method", "optimizer", "learning_rate"}, (a, b)


@pytest.mark.parametrize("name", ["steps", "c", "penalty", "learning_rate", "samples"])
def test_what_must_be_positive_says_so(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} = 0: it must be positive"):
        Config(**{name: 0})  # type: ignore[arg-type]


# -- Evaluation --------------------------------------------------------------------------------------------------------


def test_scores_of_points(tmp_path: Path) -> None:
    for config, names in (
        (DOTS, {"gradient_decades", "weights_at_extremes", "modes", "high_quality"}),
        (dataclasses.replace(DOTS, fixed_generator=True), {"gradient_decades", "weights_at_extremes", "dual_value"}),
        (dataclasses.replace(DOTS, dataset="swiss_roll"), {"gradient_decades", "weights_at_extremes"}),
    ):
        scores = paper.evaluate(config, paper.build(config), run := run_in(tmp_path))
        assert {score.name for score in scores} == names
        for score in scores:
            if score.name in run.examples:
                assert score.value == pytest.approx(float(run.examples[score.name].mean()))


def test_critics_of_a_fixed_generator_are_measured_on_the_same_pairs() -> None:
    config = dataclasses.replace(DOTS, fixed_generator=True)
    others = (config, dataclasses.replace(config, seed=3, method="clip"))
    (x, x_fake), (x_too, x_fake_too) = (paper.held_out(each, paper.build(each), 50) for each in others)
    assert torch.equal(x, x_too)
    assert torch.equal(x_fake, x_fake_too)


def test_data_as_samples_reach_all_modes(tmp_path: Path) -> None:
    model = paper.build(DOTS)
    model.sample = lambda n, generator: paper.POINTS["ring8"](n, generator)  # type: ignore[method-assign, assignment]
    found = {s.name: s.value for s in paper.evaluate(dataclasses.replace(DOTS, samples=2000), model, run_in(tmp_path))}
    assert found["modes"] == 8
    assert found["high_quality"] == pytest.approx(1 - math.exp(-4.5), abs=0.01)


def test_loss_quality_is_about_the_negative_loss(tmp_path: Path) -> None:
    """A loss that rises while the distance falls, as a critic's does, tells the quality."""
    lines = [f'{{"step": {i}, "critic_loss": {-10 + i}, "fd_val": {100 - i**2}}}' for i in range(6)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    scores = {s.name: s for s in paper.evaluate(FEW, paper.build(FEW).eval(), run_in(tmp_path))}
    assert scores["loss_quality"].value == pytest.approx(1)
    assert scores["fd[raw-pixels]"].split == "test"
    assert scores["loss_quality"].split == "val"


@pytest.mark.parametrize("config", [FEW, DOTS, dataclasses.replace(DOTS, fixed_generator=True)])
def test_every_run_has_its_picture(config: Config, tmp_path: Path) -> None:
    paper.illustrate(config, paper.build(config).eval(), run_in(tmp_path))
    assert [file.name for file in tmp_path.iterdir()] == ["samples.png"]
    assert (tmp_path / "samples.png").read_bytes().startswith(b"\x89PNG")
