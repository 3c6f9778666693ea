"""Images in logit space and points in the plane: the same in every run, and independent from split to split."""

import math

import pytest
import torch

from common.data import Compose, Dequantise, Logit, load, toy
from common.data.continuous import POINTS, Continuous
from common.data.splits import array_digest
from common.errors import ConfigError


def test_images_are_the_codes_with_noise_in_logit_space():
    data, digits = Continuous("digits", 0.01), load("digits")
    for index, name in enumerate(("train", "val", "test")):
        x, ldj = data.split(name)
        codes = getattr(digits, name).x
        expected = Compose(Dequantise(17), Logit(0.01)).encode(codes, torch.Generator().manual_seed(index))
        assert torch.equal(x, expected[0])
        assert torch.equal(ldj, expected[1])
        assert torch.equal(data.preprocess.decode(x), codes)
    assert data.shape == (1, 8, 8)
    assert data.density is None


def test_points_are_draws_of_the_density():
    data = Continuous("checkerboard")
    points = {}
    for name, count in POINTS.items():
        points[name], ldj = data.split(name)
        assert points[name].shape == (count, 2)
        assert not ldj.any()
        assert toy.density("checkerboard").log_prob(points[name]).isfinite().all()
    seen = {tuple(each) for each in points["train"].tolist()}
    assert not any(tuple(each) in seen for each in points["test"].tolist())
    correlation = torch.corrcoef(torch.stack([points["val"][:, 0], points["test"][:5000, 0]]))[0, 1]
    assert abs(correlation) < 5 / math.sqrt(5000)
    with pytest.raises(ConfigError, match="no codes"):
        _ = data.preprocess


def test_the_record_is_told_the_digest_of_the_data_and_unknown_splits_are_refused():
    record = {}
    data = Continuous("digits", record=record)
    Continuous("ring8", record=record)
    Continuous("banana", record=record)
    assert record["digits"] == load("digits").sha256
    assert record["ring8"] != record["banana"]
    assert record["ring8"] == array_digest(Continuous("ring8").split("test")[0].numpy())
    with pytest.raises(ConfigError, match="train, val, test"):
        data.split("trian")
