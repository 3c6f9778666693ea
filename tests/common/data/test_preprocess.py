"""Preprocessing: exact codes, exact bits, and the log-determinant that autograd finds."""

import math

import pytest
import torch

from common.data import Binarise, Compose, Dequantise, Logit, Scale, bits_per_dim
from common.data.preprocess import _GRID
from common.errors import DataError

LEVELS = [2, 17, 256]


def codes(levels: int = 256, copies: int = 3) -> torch.Tensor:
    """Every code, in images that are not square and have 2 channels: (copies, 2, levels, 1)."""
    return torch.arange(levels).to(torch.uint8).view(1, 1, levels, 1).repeat(copies, 2, 1, 1)


def everything(levels: int) -> list:
    stages = [Scale(levels), Dequantise(levels), Binarise(levels)]
    return stages + [Compose(Dequantise(levels), Logit(alpha)) for alpha in (0.05, 1e-6)]


@pytest.mark.parametrize("levels", LEVELS)
def test_all_codes_survive(levels):
    x = codes(levels)
    for preprocess in everything(levels):
        if not isinstance(preprocess, Binarise):
            assert torch.equal(preprocess.decode(preprocess.encode(x)[0]), x), preprocess


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("alpha", [0.05, 1e-6])
def test_all_codes_survive_with_every_noise_that_can_be_drawn(levels, alpha, monkeypatch):
    """Exhaustive: each of the grid's cells, its lowest and its highest draw, for each code."""
    noise = torch.arange(_GRID) / _GRID
    for u in (noise, noise + (1 / _GRID - 2**-24)):
        assert u.min() >= 0
        assert u.max() < 1
        monkeypatch.setattr("common.data.preprocess._uniform", lambda x, generator, u=u: u.expand(x.shape))
        x = torch.arange(levels).to(torch.uint8)[:, None].expand(levels, _GRID)
        for preprocess in (Dequantise(levels), Compose(Dequantise(levels), Logit(alpha))):
            assert torch.equal(preprocess.decode(preprocess.encode(x)[0]), x)


def test_uniform_bytes_under_the_uniform_model_score_8_bits():
    x = codes()
    dims = x[0].numel()
    z, ldj = Dequantise().encode(x)
    assert ldj.shape == (3,)
    assert z.min() > 0
    assert z.max() < 1
    torch.testing.assert_close(bits_per_dim(ldj, dims), torch.full((3,), 8.0), rtol=0, atol=1e-5)


@pytest.mark.parametrize("alpha", [0.05, 1e-6])
def test_the_same_8_bits_through_the_logit(alpha):
    """Uniform on (0, 1), seen through the logit, is a logistic density cut at both ends."""
    x = codes()
    y, ldj = Compose(Dequantise(), Logit(alpha)).encode(x)
    log_sigmoid = torch.nn.functional.logsigmoid
    y = y.double()
    log_prob = log_sigmoid(y) + log_sigmoid(-y) - math.log(1 - 2 * alpha)
    bits = bits_per_dim(log_prob.flatten(1).sum(1) + ldj, x[0].numel())
    torch.testing.assert_close(bits, torch.full((3,), 8.0).double(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("levels", LEVELS)
def test_bits_of_a_uniform_model_are_the_logarithm_of_the_levels(levels):
    x = codes(levels)
    bits = bits_per_dim(Dequantise(levels).encode(x)[1], x[0].numel())
    torch.testing.assert_close(bits, torch.full((3,), math.log2(levels)), rtol=1e-6, atol=0)


@pytest.mark.parametrize("alpha", [0.05, 1e-6, 0.3])
def test_log_determinant_is_the_jacobians(alpha):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2, 3, 2, 5, generator=generator, dtype=torch.float64)
    logit = Logit(alpha)
    _, ldj = logit.encode(x)
    for i in range(2):
        jacobian = torch.autograd.functional.jacobian(lambda v: logit.encode(v[None])[0][0], x[i])
        _, expected = torch.linalg.slogdet(jacobian.reshape(30, 30))
        torch.testing.assert_close(ldj[i], expected, rtol=1e-10, atol=0)


def test_log_determinant_of_dequantisation_is_that_of_a_division():
    _, ldj = Dequantise(17).encode(codes(17))
    jacobian = torch.eye(2 * 17, dtype=torch.float64) / 17
    torch.testing.assert_close(ldj.double(), torch.linalg.slogdet(jacobian)[1].expand(3), rtol=1e-6, atol=0)


def test_discrete_preprocessing_changes_no_volume():
    for preprocess in (Scale(17), Binarise(17)):
        assert preprocess.encode(codes(17))[1].tolist() == [0, 0, 0]


def test_the_callers_tensor_is_unchanged():
    for levels in LEVELS:
        for preprocess in everything(levels):
            x = codes(levels)
            z, _ = preprocess.encode(x)
            before = z.clone()
            preprocess.decode(z)
            assert torch.equal(x, codes(levels)), preprocess
            assert torch.equal(z, before), preprocess
    x = torch.rand(2, 3)
    before = x.clone()
    Logit(0.05).encode(x)
    assert torch.equal(x, before)


@pytest.mark.parametrize("alpha", [0.05, 1e-6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_logit_is_finite_symmetric_and_inverts_at_the_edges(alpha, dtype):
    x = torch.tensor([[0.0], [1.0], [0.5]], dtype=dtype)
    y, ldj = Logit(alpha).encode(x)
    assert y.isfinite().all()
    assert ldj.isfinite().all()
    assert y.dtype == ldj.dtype == dtype
    torch.testing.assert_close(y[0], -y[1])
    torch.testing.assert_close(ldj[0], ldj[1])
    torch.testing.assert_close(Logit(alpha).decode(y), x, rtol=0, atol=1e-6)
    # In float32, 1 - s near s = 1 keeps no digits for alpha = 1e-6 unless it is computed apart.
    torch.testing.assert_close(y[1].double(), torch.tensor([math.log((1 - alpha) / alpha)]).double())


@pytest.mark.parametrize("alpha", [0.0, 0.5, -0.1, math.nan])
def test_logit_refuses_an_impossible_alpha(alpha):
    with pytest.raises(DataError, match="alpha"):
        Logit(alpha)


def test_dequantisation_noise_is_uniform():
    x = torch.full((1, 200_000), 7, dtype=torch.uint8)
    u = Dequantise().encode(x, torch.Generator().manual_seed(0))[0].double() * 256 - 7
    assert abs(u.mean() - 0.5) < 5 / math.sqrt(12 * u.numel())
    histogram = torch.histc(u, 16, 0, 1)
    expected = u.numel() / 16
    assert ((histogram - expected).square() / expected).sum() < 50  # chi-squared, 15 degrees


def test_binarise_draws_with_the_pixels_probability():
    x = torch.tensor([0, 51, 128, 204, 255], dtype=torch.uint8).repeat(100_000, 1)
    z, _ = Binarise().encode(x, torch.Generator().manual_seed(0))
    p = x[0] / 255
    assert z.unique().tolist() == [0, 1]
    assert ((z.mean(0) - p).abs() <= 5 * (p * (1 - p) / len(x)).sqrt()).all()
    assert not torch.equal(z[:50_000], z[50_000:])


def test_binarise_leaves_binary_data_alone():
    bits = torch.tensor([[0, 1, 1, 0]], dtype=torch.uint8)
    for x, levels in ((bits, 2), (bits * 255, 256)):
        for _ in range(20):
            assert torch.equal(Binarise(levels).encode(x)[0], bits.float())
        assert torch.equal(Binarise(levels).decode(bits.float()), x)


@pytest.mark.parametrize("u", [0.0, 1 - 2**-24])
def test_black_stays_0_and_white_stays_1_at_the_ends_of_the_noise(u, monkeypatch):
    monkeypatch.setattr("common.data.preprocess._uniform", lambda x, _: torch.full(x.shape, u))
    x = torch.tensor([[0, 255]], dtype=torch.uint8)
    assert Binarise().encode(x)[0].tolist() == [[0, 1]]


def test_the_generator_decides():
    def draw(preprocess, seed):
        return preprocess.encode(codes(), torch.Generator().manual_seed(seed))[0]

    for preprocess in (Binarise(), Dequantise(), Compose(Dequantise(), Logit())):
        assert torch.equal(draw(preprocess, 1), draw(preprocess, 1))
        assert not torch.equal(draw(preprocess, 1), draw(preprocess, 2))


def test_outside_the_range_goes_to_the_end_of_the_scale():
    x = torch.tensor([[-0.2, 0.0, 1.0, 1.3]])
    assert Scale(17).decode(x).tolist() == Dequantise(17).decode(x).tolist() == [[0, 0, 16, 16]]


def test_scale_rounds_to_the_nearest_code():
    """Truncation would shift generated images by half a level."""
    for offset in (-0.4, 0.4):
        x = (torch.arange(256) + offset) / 255
        assert torch.equal(Scale().decode(x), torch.arange(256).byte())


def test_real_numbers_are_no_codes():
    for preprocess in (Scale(), Dequantise(), Binarise()):
        with pytest.raises(DataError, match=r"integer codes 0\.\.255, got torch.float32"):
            preprocess.encode(torch.rand(2, 3))
