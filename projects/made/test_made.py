"""The mathematics of masked autoencoders, on a few bits whose states can be counted."""

import dataclasses
import json
import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli

from common import probes
from common.data import Batches, Binarise, Data, Split, load
from common.errors import ConfigError
from common.experiment import Run
from projects.made import made
from projects.made.made import (
    MADE,
    PRESETS,
    TEST,
    TRAIN,
    VAL,
    Config,
    EarlyStopping,
    ensemble,
    ensemble_log_prob,
    numbers,
    training_mask,
)

DIMS = 5
DEEP = Config(hidden=(12, 7), masks=3)
SHALLOW = Config(hidden=(9,), masks=3)


pytestmark = pytest.mark.usefixtures("double")


def model_of(config: Config = DEEP, dims: int = DIMS) -> MADE:
    """A model whose weights and biases are far from zero."""
    torch.manual_seed(1)
    model = MADE(config, dims).double()
    for p in model.parameters():
        torch.nn.init.normal_(p)
    return model


def states(dims: int = DIMS) -> Tensor:
    return torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * dims)


def m_of(config: Config = DEEP, dims: int = DIMS, index: int = 0) -> list[Tensor]:
    return numbers(config, dims, TRAIN, index)


# -- Masks -------------------------------------------------------------------------------------------------------------


def test_masks_are_those_of_equations_12_and_13_one_connection_at_a_time():
    model, m = model_of(), m_of(index=2)
    model.set_mask(m)
    for l in (1, 2):
        M = model.get_buffer(f"M_W{l - 1}")
        for k in range(len(m[l])):
            for j in range(len(m[l - 1])):
                assert M[k, j] == (1.0 if m[l][k] >= m[l - 1][j] else 0.0)
    for d in range(DIMS):
        for k in range(len(m[2])):
            assert model.M_V[d, k] == (1.0 if m[0][d] > m[2][k] else 0.0)
        for j in range(DIMS):
            assert model.M_A[d, j] == (1.0 if m[0][d] > m[0][j] else 0.0)


def test_numbers_are_drawn_as_the_paper_says():
    config = Config(hidden=(400, 300))
    drawn = [numbers(config, DIMS, TRAIN, index) for index in range(200)]
    for m in drawn:
        assert sorted(m[0].tolist()) == [1, 2, 3, 4, 5]
        assert m[1].min() == 1  # of 400 draws from 1 to 4
        assert set(m[2].tolist()) == {1, 2, 3, 4}  # D - 1 at most: a unit that saw everything would serve no output
    orders = torch.stack([m[0] for m in drawn]).double()
    assert ((orders.mean(0) - 3).abs() < 5 * math.sqrt(2 / 200)).all()
    share = torch.stack([(m[1] == 4).double().mean() for m in drawn]).mean()
    assert abs(share - 1 / 4) < 5 * math.sqrt(3 / 16 / 80_000)


def test_no_unit_is_below_the_smallest_number_of_the_layer_under_it():
    config = Config(hidden=(1, 50))  # a single unit below: its number is the least that a unit above can use
    smallest = set()
    for index in range(50):
        _, below, above = numbers(config, 9, TRAIN, index)
        assert above.min() == below.min()
        smallest.add(int(below))
    assert len(smallest) > 4


def test_masks_depend_on_the_seed_the_sequence_and_the_index_alone():
    def same(a, b):
        return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))

    assert same(m_of(index=7), m_of(index=7))
    others = [m_of(index=8), numbers(DEEP, DIMS, VAL, 7), numbers(DEEP, DIMS, TEST, 7)]
    others.append(numbers(dataclasses.replace(DEEP, seed=1), DIMS, TRAIN, 7))
    for index, one in enumerate(others):
        assert not same(one, m_of(index=7))
        assert not any(same(one, other) for other in others[:index])


@pytest.mark.parametrize(("resample", "moves"), [("both", [0, 1, 2]), ("order", [0]), ("connectivity", [1, 2])])
def test_what_is_resampled_is_the_order_or_the_connectivity_or_both(resample, moves):
    config = Config(hidden=(40, 40), masks=0, resample=resample)
    first, *more = (numbers(config, 20, TRAIN, index) for index in range(4))
    for m in more:
        assert [l for l in range(3) if not torch.equal(m[l], first[l])] == moves


def test_updates_go_through_the_cycle_of_masks():
    def index_of(config, step):
        m = training_mask(config, DIMS, step)
        return next(i for i in range(20) if all(map(torch.equal, m, numbers(config, DIMS, TRAIN, i))))

    assert [index_of(dataclasses.replace(DEEP, masks=1), step) for step in range(5)] == [0] * 5
    assert [index_of(DEEP, step) for step in range(7)] == [0, 1, 2, 0, 1, 2, 0]
    assert [index_of(dataclasses.replace(DEEP, masks=0), step) for step in range(7)] == list(range(7))


def test_a_cycle_is_scored_with_its_own_masks_and_sampling_with_new_ones():
    def pick(config, sequence):
        return [[each.tolist() for each in m] for m in ensemble(config, DIMS, sequence)]

    cycle = [[each.tolist() for each in m_of(index=i)] for i in range(3)]
    assert pick(DEEP, TEST) == pick(DEEP, VAL) == cycle
    sampled = dataclasses.replace(DEEP, masks=0, val_masks=4, test_masks=6)
    assert len(pick(sampled, VAL)) == 4
    assert len(pick(sampled, TEST)) == 6
    assert pick(sampled, TEST) == pick(sampled, TEST)
    assert not any(m in pick(sampled, VAL) for m in pick(sampled, TEST))


# -- Model -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config",
    [
        DEEP,
        SHALLOW,
        dataclasses.replace(DEEP, direct=False),
        dataclasses.replace(DEEP, conditioning=True, activation="softplus"),
    ],
    ids=["deep", "shallow", "no direct connections", "conditioning, softplus"],
)
def test_conditionals_are_those_of_the_equations_written_out_unit_by_unit(config):
    model, m = model_of(config), m_of(config, index=1)
    model.set_mask(m)
    g = torch.relu if config.activation == "relu" else torch.nn.functional.softplus
    for x in states()[::5]:
        h = x
        for l, (W, b) in enumerate(zip(model.W, model.b, strict=True), start=1):
            out = []
            for k in range(len(b)):
                below = [j for j in range(len(h)) if m[l - 1][j] <= m[l][k]]
                total = b[k] + sum(W[k, j] * h[j] for j in below)
                if config.conditioning:
                    total = total + sum(model.U[l - 1][k, j] for j in below)
                out.append(g(total))
            h = torch.stack(out)
        log_p = 0.0
        for d in range(DIMS):
            logit = model.c[d] + sum(model.V[d, k] * h[k] for k in range(len(h)) if m[-1][k] < m[0][d])
            if config.direct:
                logit = logit + sum(model.A[d, j] * x[j] for j in range(DIMS) if m[0][j] < m[0][d])
            log_p = log_p + Bernoulli(logits=logit).log_prob(x[d])
        torch.testing.assert_close(model.log_prob(x[None])[0], log_p)


@pytest.mark.parametrize("config", [DEEP, SHALLOW], ids=["deep", "shallow"])
def test_the_probabilities_of_all_states_sum_to_one_under_every_mask(config):
    model = model_of(config)
    for index in range(10):
        model.set_mask(m_of(config, index=index))
        torch.testing.assert_close(model.log_prob(states()).exp().sum(), torch.tensor(1.0))


@pytest.mark.parametrize("index", range(4))
def test_no_conditional_sees_its_own_or_a_later_input(index):
    model = model_of(dataclasses.replace(DEEP, conditioning=True))
    model.set_mask(m_of(index=index))
    assert probes.causality(model, states(), order=m_of(index=index)[0]).passed


def test_the_causality_probe_notices_an_output_mask_that_is_not_strict():
    model = model_of()
    model.set_mask(m_of(index=1))
    model.M_V.copy_(m_of(index=1)[0][:, None] >= m_of(index=1)[-1][None, :])
    assert not probes.causality(model, states(), order=model.order).passed


def test_the_causality_probe_notices_a_mask_that_is_not_set_anew_on_the_direct_connection():
    model = model_of()
    model.set_mask(m_of(index=0))
    stale = model.M_A.clone()
    model.set_mask(m_of(index=1))
    assert not torch.equal(model.M_A, stale)
    model.M_A.copy_(stale)
    assert not probes.causality(model, states(), order=model.order).passed
    assert abs(model.log_prob(states()).exp().sum() - 1) > 1e-3


def test_masked_weights_have_a_gradient_of_exactly_zero_and_do_not_move():
    config = dataclasses.replace(DEEP, conditioning=True, step_size=1.0)
    model = model_of(config)
    masks = [model.get_buffer("M_W0"), model.get_buffer("M_W1"), model.M_V, model.M_A]
    weights = [*model.W, model.V, model.A]
    before = [w.detach().clone() for w in weights]
    optimizer = made.descent(config, model)
    for _ in range(3):
        optimizer.zero_grad()
        (-model.log_prob(states()[::3]).mean()).backward()
        for w, M in zip([*weights, *model.U], [*masks, *masks[:2]], strict=True):
            assert (w.grad[M == 0] == 0).all()
        optimizer.step()
    for w, M, old in zip(weights, masks, before, strict=True):
        assert torch.equal(w[M == 0], old[M == 0])
        assert (w != old).any()


def test_masked_weights_do_not_matter():
    model = model_of()
    expected = model.log_prob(states())
    with torch.no_grad():
        for l, W in enumerate(model.W):
            W[model.get_buffer(f"M_W{l}") == 0] += 100
        model.V[model.M_V == 0] += 100
        model.A[model.M_A == 0] += 100
    assert torch.equal(model.log_prob(states()), expected)


def test_what_is_saved_are_the_parameters_and_masks_come_back_from_the_seed():
    config = dataclasses.replace(DEEP, dataset="digits")
    torch.set_default_dtype(torch.float32)
    model = made.build(config)
    for p in model.parameters():
        torch.nn.init.normal_(p)
    saved = model.state_dict()
    assert set(saved) == {name for name, _ in model.named_parameters()}
    again = made.build(config)
    again.load_state_dict(saved)
    x = torch.ones(1, 64)
    assert torch.equal(again(x), model(x))


# -- Ensembles and samples ---------------------------------------------------------------------------------------------


def test_ensembles_average_probabilities_and_not_their_logarithms():
    model, masks = model_of(), list(ensemble(DEEP, DIMS, TEST))
    each = []
    for m in masks:
        model.set_mask(m)
        each.append(model.log_prob(states()))
    each = torch.stack(each)
    mixture, alone = ensemble_log_prob(model, states(), masks)
    torch.testing.assert_close(mixture, each.exp().mean(0).log())
    torch.testing.assert_close(alone, each.mean(0))
    torch.testing.assert_close(mixture.exp().sum(), torch.tensor(1.0))
    assert (mixture >= alone).all()
    assert alone.exp().sum() < 0.999  # which is no distribution


def test_the_mixture_of_improbable_vectors_does_not_underflow():
    model = model_of(dataclasses.replace(DEEP, masks=2), dims=3000)
    mixture, alone = ensemble_log_prob(model, torch.ones(2, 3000), ensemble(DEEP, 3000, TEST))
    assert mixture.isfinite().all()
    assert (mixture < -2000).all()
    assert (mixture >= alone).all()


def test_samples_follow_the_mixture():
    model, masks, n = model_of(dataclasses.replace(DEEP, masks=2)), [m_of(index=0), m_of(index=1)], 40_000
    x = model.sample(n, masks, generator=torch.Generator().manual_seed(0))
    assert x.shape == (n, DIMS)
    place = (x @ (2 ** torch.arange(DIMS - 1, -1, -1)).double()).long()
    frequency = place.bincount(minlength=2**DIMS) / n
    p = ensemble_log_prob(model, states(), masks)[0].exp()
    assert ((frequency - p).abs() < 5 * (p * (1 - p) / n).sqrt() + 1e-4).all()
    assert frequency.max() > 2 / 2**DIMS  # far from uniform


# -- Training ----------------------------------------------------------------------------------------------------------


class Schedule:
    """A validation NLL that is given, one value a pass."""

    def __init__(self, *values: float) -> None:
        self.values, self.calls = list(values), 0

    def __call__(self) -> float:
        self.calls += 1
        return self.values[min(self.calls, len(self.values)) - 1]


def run_in(directory, config):
    return Run(directory, torch.device("cpu"), {}, config.seed, progress=False)


DIGITS = Config(
    dataset="digits",
    hidden=(16,),
    masks=0,
    step_size=1e-3,
    batch_size=500,
    patience=3,
    passes=40,
    val_masks=2,
    test_masks=4,
)


@pytest.fixture
def validation(monkeypatch):
    """Put given validation NLLs in the place of measured ones; tells which weights each was given to."""

    def given(*values):
        schedule, seen = Schedule(*values), []

        class Given(EarlyStopping):
            def __init__(self, model, nll, every):
                super().__init__(model, lambda: (seen.append(model.c.detach().clone()), schedule())[1], every)

        monkeypatch.setattr(made, "EarlyStopping", Given)
        return seen

    return given


def val_curve(directory):
    return [json.loads(line)["val_nll"] for line in (directory / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.usefixtures("single")
def test_training_ends_when_patience_does_and_gives_back_the_best_weights(tmp_path, validation):
    seen = validation(5, 4, 4.5, 3, 3.5, 3, 3.2, 1)  # an equal value is no better; the 1 comes too late
    model = made.train(DIGITS, run_in(tmp_path, DIGITS))
    assert val_curve(tmp_path) == [5, 4, 4.5, 3, 3.5, 3, 3.2]
    assert torch.equal(model.c, seen[3])
    assert not torch.equal(seen[3], seen[-1])


@pytest.mark.usefixtures("single")
def test_training_ends_at_the_last_pass_allowed(tmp_path, validation):
    validation(*range(20, 0, -1))
    config = dataclasses.replace(DIGITS, passes=5)
    run = run_in(tmp_path, config)
    made.train(config, run)
    assert len(val_curve(tmp_path)) == 5
    assert run.steps == 5 * math.ceil(1297 / 500)


@pytest.mark.usefixtures("single")
def test_an_interrupted_training_remembers_its_best_pass_and_its_weights(tmp_path, validation):
    seen = validation(5, 3, 4, 4, 4, 1)
    brief = dataclasses.replace(DIGITS, passes=4)
    made.train(brief, run_in(tmp_path, brief))
    model = made.train(DIGITS, run_in(tmp_path, DIGITS))
    assert val_curve(tmp_path) == [5, 3, 4, 4, 4]
    assert torch.equal(model.c, seen[1])


@pytest.mark.usefixtures("single")
def test_a_finished_training_is_not_continued(tmp_path, validation):
    seen = validation(5, 4, 6, 6, 6, 1)
    first = made.train(DIGITS, run_in(tmp_path, DIGITS)).state_dict()
    curve = val_curve(tmp_path)
    again = made.train(DIGITS, run_in(tmp_path, DIGITS)).state_dict()
    assert len(seen) == len(curve) == 5
    assert val_curve(tmp_path) == curve
    assert all(torch.equal(first[name], again[name]) for name in first)


@pytest.mark.usefixtures("single")
def test_only_the_validation_split_decides_when_to_stop(tmp_path, monkeypatch):
    data = load("digits")
    blank = Split(torch.zeros_like(data.test.x))
    config = dataclasses.replace(DIGITS, passes=3)
    monkeypatch.setattr(made, "load", lambda name: dataclasses.replace(data, test=blank))
    model = made.train(config, run_in(tmp_path / "a", config))
    curve = val_curve(tmp_path / "a")

    x = made.as_bits(data, data.val.x)
    last, _ = ensemble_log_prob(model, x, ensemble(config, 64, VAL))
    assert min(curve) == pytest.approx(-float(last.mean()), abs=1e-4)
    monkeypatch.setattr(made, "load", lambda name: data)
    made.train(config, run_in(tmp_path / "b", config))
    assert val_curve(tmp_path / "b") == curve


@pytest.mark.usefixtures("single")
@pytest.mark.parametrize("masks", [1, 2, 0])
def test_training_is_descent_on_the_nll_under_one_mask_after_the_other(tmp_path, masks):
    config = dataclasses.replace(DIGITS, masks=masks, passes=2)
    made.train(config, run_in(tmp_path, config))

    data, model = load("digits"), made.build(config)
    optimizer = torch.optim.Adadelta(model.parameters(), lr=1.0, rho=0.95, eps=1e-3)
    batches, generator = Batches(data.train, 500, seed=0, drop_last=False), torch.Generator().manual_seed(0)
    losses = []
    for step in range(2 * 3):
        model.set_mask(numbers(config, 64, TRAIN, step % masks if masks else step))
        x, _ = Binarise(17).encode(batches(step).x.flatten(1), generator)
        loss = -model.log_prob(x).mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert len(batches(2).x) == 1297 - 1000  # the short last batch is used
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    for line, start in zip(lines, (0, 3), strict=True):
        assert line["loss"] == pytest.approx(sum(losses[start : start + 3]) / 3, rel=1e-4)


def test_the_optimisers_are_those_of_the_authors_commands():
    adadelta, adagrad = (
        made.descent(dataclasses.replace(DEEP, optimizer=name, step_size=0.25), model_of()).param_groups[0]
        for name in ("adadelta", "adagrad")
    )
    assert (adadelta["lr"], adadelta["rho"], adadelta["eps"]) == (1.0, 0.95, 0.25)
    assert (adagrad["lr"], adagrad["lr_decay"], adagrad["weight_decay"]) == (0.25, 0, 0)


@pytest.mark.usefixtures("single")
def test_weights_begin_orthogonal_and_biases_at_zero():
    model = made.build(Config(conditioning=True, hidden=(300, 200)))
    for w in [*model.W, *model.U, model.V, model.A]:
        small = w.T @ w if w.shape[0] >= w.shape[1] else w @ w.T
        torch.testing.assert_close(small, torch.eye(len(small)), atol=1e-5, rtol=0)
    assert not any(b.any() for b in [*model.b, model.c])
    assert not torch.equal(
        made.build(Config(seed=1)).c + made.build(Config(seed=1)).V[:, 0], made.build(Config()).V[:, 0]
    )


# -- Evaluation --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("single")
def test_scores_are_the_nll_of_the_mixture_on_the_test_split(tmp_path):
    model, run, data = made.build(DIGITS), run_in(tmp_path, DIGITS), load("digits")
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.1)
    scores = {score.name: score for score in made.evaluate(DIGITS, model, run)}
    x = made.as_bits(data, data.test.x)
    mixture, alone = ensemble_log_prob(model, x, ensemble(DIGITS, 64, TEST))
    torch.testing.assert_close(run.examples["nll"], -mixture)
    assert scores["nll"].value == pytest.approx(-float(mixture.mean()))
    assert scores["nll_one_mask"].value == pytest.approx(-float(alone.mean()))
    assert scores["nll"].value < scores["nll_one_mask"].value
    assert {(s.name, s.split, s.n, s.kind, s.unit) for s in scores.values()} == {
        ("nll", "test", 300, "exact", "nats"),
        ("nll_one_mask", "test", 300, "exact", "nats"),
        ("nll_val", "val", 200, "exact", "nats"),
    }
    assert list(run.data) == ["digits"]


def test_evaluation_bits_are_drawn_once_and_binary_data_stay_as_they_are():
    grey = load("digits")
    assert torch.equal(made.as_bits(grey, grey.test.x), made.as_bits(grey, grey.test.x))
    assert made.as_bits(grey, grey.test.x).unique().tolist() == [0, 1]
    x = torch.randint(0, 2, (50, 7), dtype=torch.uint8)
    binary = Data("uci_dna", Split(x), Split(x), Split(x), 2, "", "")
    assert torch.equal(made.as_bits(binary, x), x.float())


@pytest.mark.usefixtures("single")
def test_what_is_shown_are_the_first_samples_and_the_training_examples_nearest_to_them(tmp_path, monkeypatch):
    shown = {}
    monkeypatch.setattr(made.plotting, "image_grid", lambda images, path, **_: shown.update({path.stem: images}))
    model, data = made.build(DIGITS), load("digits")
    made.illustrate(DIGITS, model, run_in(tmp_path, DIGITS))
    masks = list(ensemble(DIGITS, 64, TEST))
    expected = model.sample(64, masks, generator=torch.Generator().manual_seed(DIGITS.seed + 2))
    assert torch.equal(shown["samples"].flatten(1), expected)
    train = made.as_bits(data, data.train.x)
    for x, near in zip(expected[:5], shown["nearest"].flatten(1)[:5], strict=True):
        assert (near != x).sum() == (train != x).sum(1).min()

    vectors = dataclasses.replace(data, **{s: Split(getattr(data, s).x.flatten(1)) for s in ("train", "val", "test")})
    monkeypatch.setattr(made, "load", lambda name: vectors)
    made.illustrate(DIGITS, model, run_in(tmp_path, DIGITS))
    assert torch.equal(shown["samples"][0], expected)
    assert torch.equal(shown["samples"][1], made.as_bits(data, data.test.x[:64]))


# -- Settings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [{"masks": -1}, {"hidden": ()}, {"hidden": (5, 0)}, {"step_size": 0.0}, {"patience": 0}, {"test_masks": 0}],
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ConfigError):
        Config(**wrong)


def test_runs_that_are_compared_are_of_one_network():
    """What their masks prefer, the validation NLL chose for each: the step size."""
    for runs in PRESETS.values():
        for name in {name.rsplit("-", 1)[0] for name in runs}:
            one, many = (config for run, config in runs.items() if run.rsplit("-", 1)[0] == name)
            assert one.masks == 1 != many.masks
            assert dataclasses.replace(many, masks=1, step_size=one.step_size) == one


def test_a_configuration_survives_a_record():
    config = Config(hidden=(20, 10), masks=4)
    again = Config(**json.loads(json.dumps(dataclasses.asdict(config))))
    torch.testing.assert_close(made.build(again).W[1], made.build(config).W[1])


def test_every_preset_but_the_largest_networks_can_be_built():
    for runs in PRESETS.values():
        for config in runs.values():
            if max(config.hidden) < 2000:
                assert made.build(config).c.shape == (made.DIMS[config.dataset],)
