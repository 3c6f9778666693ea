"""Modes are counted where samples are good; nobody else's samples count."""

import pytest
import torch

from common.evaluation.modes import mode_scores

CENTRES = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])


def test_modes_and_quality_by_hand() -> None:
    samples = torch.tensor([[0.0, 2.9], [2.0, 2.0], [0.0, 3.1], [10.0, 0.0], [0.0, 6.9], [5.0, 5.0]])
    scores, good = mode_scores(samples, CENTRES, 1.0)
    found = {score.name: score for score in scores}
    assert good.tolist() == [1, 1, 0, 1, 0, 0]
    assert found["modes"].value == 2
    assert found["high_quality"].value == pytest.approx(0.5)


def test_three_deviations_hold_what_a_gaussian_in_the_plane_has_there() -> None:
    generator = torch.Generator().manual_seed(0)
    samples = CENTRES[torch.randint(3, (40_000,), generator=generator)] + 0.5 * torch.randn(
        40_000, 2, generator=generator
    )
    scores, _ = mode_scores(samples, CENTRES, 0.5)
    found = {score.name: score for score in scores}
    expected = 1 - torch.exp(torch.tensor(-4.5)).item()  # P(r < 3) of a Rayleigh distribution
    assert found["modes"].value == 3
    assert abs(found["high_quality"].value - expected) < 5 * (found["high_quality"].stderr or 0)


def test_samples_far_from_everything_reach_nothing() -> None:
    scores, _ = mode_scores(torch.full((5, 2), 100.0), CENTRES, 1.0)
    assert [score.value for score in scores] == [0, 0]
