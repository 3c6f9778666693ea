"""The mathematics, on models small enough to know the answer.

WRITE: the paper's own tests: against closed forms, autograd, quadrature, enumeration, a slow and obvious reference.
"""

import math

import pytest
import torch
from torch.distributions import Bernoulli, Categorical, Independent, MixtureSameFamily

from common.data import Binarise, load
from common.errors import ConfigError
from common.experiment import Run
from projects.__PAPER__ import __PAPER__ as paper
from projects.__PAPER__.__PAPER__ import BITS, PRESETS, Config, Mixture, tiny

DIGITS = Config(dataset="digits", components=1, passes=20, learning_rate=0.1)


def run_in(folder) -> Run:
    return Run(folder, torch.device("cpu"), {}, 0, progress=False)


def uneven() -> Mixture:
    """Two components on three bits, of proportions 1 : 3."""
    model = tiny()
    model.mixing.data = torch.tensor([0.0, math.log(3.0)], dtype=torch.float64)
    return model


def test_log_prob_is_that_of_torchs_mixture():
    model = uneven()
    proportions = Categorical(probs=torch.tensor([0.25, 0.75], dtype=torch.float64))
    written_out = MixtureSameFamily(proportions, Independent(Bernoulli(logits=model.pixels), 1))
    torch.testing.assert_close(model.log_prob(BITS), written_out.log_prob(BITS))


def test_probabilities_of_all_images_sum_to_one():
    total = uneven().log_prob(BITS).exp().sum()
    torch.testing.assert_close(total, torch.ones_like(total))


def test_samples_follow_the_model():
    model, n = uneven(), 20_000
    drawn = model.sample(n, generator=torch.Generator().manual_seed(0))
    expected = (model.log_prob(BITS).exp()[:, None] * BITS).sum(0)  # E[x], by enumeration
    assert ((drawn.mean(0) - expected).abs() < 5 * drawn.std(0) / math.sqrt(n)).all()


def test_one_component_learns_the_mean_image(tmp_path):
    """The likeliest independent pixels have the data's own frequencies."""
    data = load("digits")
    model = paper.train(DIGITS, run_in(tmp_path))
    mean_image = data.train.x.flatten(1).float().mean(0) / (data.levels - 1)
    assert (torch.sigmoid(model.pixels[0]) - mean_image).abs().max() < 0.06


def test_evaluation_is_the_mean_over_the_test_images(tmp_path):
    model, run = paper.build(DIGITS), run_in(tmp_path)
    (nll,) = paper.evaluate(DIGITS, model, run)
    data = load("digits")
    x, _ = Binarise(data.levels).encode(data.test.x.flatten(1), torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert nll.value == pytest.approx(float(-model.log_prob(x).mean()))
    assert (nll.kind, nll.split, nll.n) == ("exact", "test", len(data.test))
    assert len(run.examples["nll"]) == nll.n
    assert list(run.data) == ["digits"]


def test_every_preset_can_be_built():
    for runs in PRESETS.values():
        for config in runs.values():
            paper.build(config)


@pytest.mark.parametrize("name", ["components", "passes", "learning_rate", "batch_size"])
def test_settings_that_cannot_be_are_refused(name):
    with pytest.raises(ConfigError, match=name):
        Config(**{name: 0})
