"""Measures of critics, against what is known of simple ones."""

import math

import pytest
import torch
from torch import Tensor, nn

from common.errors import ConfigError
from common.evaluation.critics import (
    critic_scores,
    dual_values,
    layer_gradients,
    rank_correlation,
    share_at_extremes,
    slopes,
)


def points(n: int, seed: int = 0) -> Tensor:
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_slopes_take_the_norm_over_all_values_of_an_example() -> None:
    x = torch.randn(5, 2, 3, 4, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(slopes(lambda x: x.square().flatten(1).sum(1) / 2, x), x.flatten(1).norm(dim=1))
    assert not x.requires_grad


def test_a_linear_critic_finds_the_whole_distance_of_a_shift_whatever_its_scale() -> None:
    shift = torch.tensor([3.0, 4.0], dtype=torch.float64)  # W_1 = 5
    x = points(50)
    for scale in (0.01, 1.0, 70.0):
        found = dual_values(lambda x, s=scale: s * (x @ shift), x, x - shift)  # type: ignore[misc]
        assert torch.allclose(found, torch.full((50,), 5.0, dtype=torch.float64))


def test_no_critic_finds_more_than_there_is() -> None:
    shift = torch.tensor([0.5, 0.0], dtype=torch.float64)
    for seed in range(5):
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 1)).double()
        x = points(500, seed)
        found = dual_values(lambda x, n=network: n(x).squeeze(1), x, x - shift)  # type: ignore[misc]
        assert found.abs().mean() < 0.5  # the distance of the pairs, each of which bounds its own value


def test_the_steepest_place_is_sought_between_the_points_too() -> None:
    x = torch.tensor([[-1.0, 0.0]], dtype=torch.float64)
    x_fake = torch.tensor([[1.0, 0.1]], dtype=torch.float64)  # D is flat at both, and steep between them
    found = dual_values(lambda x: -(torch.tanh(5 * x[:, 0])), x, x_fake)
    assert float(found[0]) == pytest.approx(2 * math.tanh(5) / 5, rel=1e-3)


def test_dual_values_want_pairs_in_the_plane_and_a_critic() -> None:
    with pytest.raises(ConfigError, match="not both"):
        dual_values(lambda x: x.sum(1), points(3), points(4))
    with pytest.raises(ConfigError, match="flat"):
        dual_values(lambda x: 0 * x.sum(1), points(3), points(3))


def test_layer_gradients_of_linear_layers_are_products_of_their_weights() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4), nn.Linear(4, 1))
    x, x_fake = points(6).float(), points(6, 1).float()
    found = layer_gradients(network, x, x_fake)
    # d/dD is -1/6 for data, 1/6 for samples: twelve values of that size; below, by the chain rule.
    top = math.sqrt(12) / 6
    one = network[2].weight.double()
    two = one @ network[1].weight.double()
    assert torch.allclose(found, torch.stack([top * two.norm(), top * one.norm(), torch.tensor(top).double()]))
    assert network[0].weight.dtype == torch.float32
    assert network[0].weight.grad is None


def test_layer_gradients_are_of_activations_and_below_what_float32_holds() -> None:
    network = nn.Sequential(nn.Linear(2, 1), nn.ReLU(), *[m for _ in range(12) for m in (nn.Linear(1, 1), nn.ReLU())])
    network.append(nn.Linear(1, 1))
    for parameter in network.parameters():
        nn.init.constant_(parameter, 1e-5)
    found = layer_gradients(network, points(4).abs(), points(4, 1).abs())
    assert len(found) == 14
    steps = found.log10().diff()
    assert torch.allclose(steps, torch.full_like(steps, 5.0), atol=1e-4)  # 1e-65 at the bottom


def test_share_at_extremes_is_about_weights_layer_by_layer() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([[0.01, -0.01], [0.0098, -0.00995]]))  # three of four within 1 %
        network[1].weight.copy_(torch.tensor([[8.0, 0.01], [0.0, -7.0]]))  # one of four
        network[0].bias.fill_(99.0)
    assert share_at_extremes(network) == 0.5


def test_rank_correlation() -> None:
    x = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    assert rank_correlation(x, x.exp()) == (pytest.approx(1), pytest.approx(0))
    assert rank_correlation(x, -x)[0] == pytest.approx(-1)
    # By hand: 1 - 6 sum d^2 / (n (n^2 - 1)), with d = 1, 1, 0, 1, 1.
    assert rank_correlation(x, torch.tensor([20.0, 10.0, 30.0, 50.0, 40.0]))[0] == pytest.approx(1 - 6 * 4 / 120)
    # Ties share their rank: 1.5, 1.5, 3, 4 against 1, 2, 3, 4.
    tied, _ = rank_correlation(torch.tensor([7.0, 7.0, 9.0, 10.0]), torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert tied == pytest.approx(4.5 / math.sqrt(4.5 * 5))
    with pytest.raises(ConfigError, match="equal"):
        rank_correlation(x, torch.ones(5))
    with pytest.raises(ConfigError, match="shapes"):
        rank_correlation(x, x[:2])


def test_the_error_of_a_rank_correlation_is_its_spread() -> None:
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(300):
        a, noise = torch.randn(2, 40, generator=generator)
        found.append(rank_correlation(a, a + noise))
    rho, errors = torch.tensor(found).T
    assert float(errors.mean()) == pytest.approx(float(rho.std()), rel=0.15)


def test_critic_scores_say_what_they_are_means_of() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1)).double()
    x, x_fake = points(100), points(100, 1)
    scores, values = critic_scores(network, x, x_fake, dual=True, batch=30)
    found = {score.name: score for score in scores}
    assert set(found) == {"gradient_decades", "dual_value", "weights_at_extremes"}
    assert found["gradient_decades"].n == 4  # three batches of thirty, and one of ten
    for name, each in values.items():
        assert found[name].value == pytest.approx(float(each.mean()))
    norms = layer_gradients(network, x[:30], x_fake[:30]).log10()
    assert float(values["gradient_decades"][0]) == pytest.approx(float(norms.max() - norms.min()))
    assert "dual_value" not in critic_scores(network, x, x_fake, dual=False)[1]
