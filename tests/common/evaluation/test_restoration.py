"""PSNR and SSIM against slow loops and closed forms; LPIPS against a package that is easy to know."""

import math
import sys
import warnings
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

from common.errors import ConfigError, DataError
from common.evaluation.restoration import lpips_score, luma, psnr, psnr_score, ssim, ssim_score


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(n: int = 6, channels: int = 3, height: int = 14, width: int = 17, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (n, channels, height, width), generator=seeded(seed), dtype=torch.uint8)


def damaged(x: Tensor, strength: int = 20, seed: int = 1) -> Tensor:
    noise = torch.randint(-strength, strength + 1, x.shape, generator=seeded(seed))
    return (x.int() + noise).clamp(0, 255).to(torch.uint8)


# -- PSNR --------------------------------------------------------------------------------------------------------------


def test_psnr_of_a_known_error() -> None:
    x = torch.full((2, 3, 4, 5), 100, dtype=torch.uint8)
    y = x.clone()
    y[0] += 10  # everywhere 10 off
    y[1, 1, 2, 3] = 200  # 100 off in one of 60
    found = psnr(x, y, peak=255)
    assert found.tolist() == pytest.approx([20 * math.log10(25.5), 10 * math.log10(255**2 * 60 / 100**2)])
    assert psnr(x, x, peak=255).tolist() == [math.inf] * 2
    assert psnr(x.double() / 255, y.double() / 255, peak=1.0).tolist() == pytest.approx(found.tolist())


def test_the_score_is_the_mean_of_the_images_decibels_and_not_of_their_errors() -> None:
    y = images()
    x = damaged(y)
    x[0] = damaged(y[:1], 120)[0]
    errors = [float(((x[i].double() - y[i].double()) ** 2).mean()) for i in range(6)]
    decibels = [10 * math.log10(255**2 / e) for e in errors]
    score = psnr_score(x, y, split="test", protocol="noise of 20 codes")
    assert score.value == pytest.approx(float(np.mean(decibels)))
    assert score.stderr == pytest.approx(float(np.std(decibels, ddof=1)) / math.sqrt(6))
    assert score.value > 10 * math.log10(255**2 / np.mean(errors)) + 1
    assert (score.name, score.unit, score.kind, score.n, score.split) == ("psnr", "dB", "estimate", 6, "test")
    assert score.protocol == (
        "6 images of 14x17, RGB, no border cut off, peak 255, mean of the images' dB; noise of 20 codes"
    )


def test_equal_images_have_no_mean() -> None:
    y = images()
    x = damaged(y)
    x[3] = y[3]
    with pytest.raises(DataError, match=r"1 of 6 restored images equal .* is image 3"):
        psnr_score(x, y, split="test")


def test_luma_is_that_of_the_standard() -> None:
    white, black = torch.full((3, 1, 1), 255), torch.zeros(3, 1, 1)
    assert (float(luma(white)), float(luma(black))) == pytest.approx((235, 16), abs=1e-3)
    red = torch.tensor([255.0, 0, 0]).view(3, 1, 1)
    assert float(luma(red)) == pytest.approx(16 + 219 * 0.299, abs=0.01)  # BT.601's weights .299, .587, .114
    assert float(luma(red.roll(1, 0))) == pytest.approx(16 + 219 * 0.587, abs=0.01)
    assert float(luma(red.roll(2, 0))) == pytest.approx(16 + 219 * 0.114, abs=0.01)
    assert luma(images()).shape == (6, 1, 14, 17)


def test_colours_and_crop_decide_the_value_and_are_stated() -> None:
    y = images()
    x = damaged(y)
    x[..., :2, :] = 0  # a spoilt border
    by_luma = psnr_score(x, y, split="test", colour="y")
    assert by_luma.value == pytest.approx(float(psnr(luma(x), luma(y), peak=255).mean()))
    assert "Y of BT.601 (16 to 235)" in by_luma.protocol
    cropped = psnr_score(x, y, split="test", crop=2)
    assert cropped.value == pytest.approx(float(psnr(x[:, :, 2:12, 2:15], y[:, :, 2:12, 2:15], peak=255).mean()))
    assert cropped.value > psnr_score(x, y, split="test").value + 5
    assert "2 pixels cut off each border" in cropped.protocol
    grey = psnr_score(x[:, :1] // 16, y[:, :1] // 16, split="test", levels=16)
    assert grey.value == pytest.approx(float(psnr(x[:, :1] // 16, y[:, :1] // 16, peak=15).mean()))
    assert "grey" in grey.protocol
    assert "peak 15" in grey.protocol


# -- SSIM --------------------------------------------------------------------------------------------------------------


def slow_ssim(x: np.ndarray, y: np.ndarray, peak: float) -> float:
    """Wang et al. 2004, eqs. 13 to 16, of one channel, place by place."""
    window = np.array([[math.exp(-((i - 5) ** 2 + (j - 5) ** 2) / (2 * 1.5**2)) for j in range(11)] for i in range(11)])
    window /= window.sum()
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    found = []
    for i in range(x.shape[0] - 10):
        for j in range(x.shape[1] - 10):
            a, b = x[i : i + 11, j : j + 11], y[i : i + 11, j : j + 11]
            m_a, m_b = (window * a).sum(), (window * b).sum()
            v_a, v_b = (window * (a - m_a) ** 2).sum(), (window * (b - m_b) ** 2).sum()
            c_ab = (window * (a - m_a) * (b - m_b)).sum()
            found.append((2 * m_a * m_b + c1) * (2 * c_ab + c2) / ((m_a**2 + m_b**2 + c1) * (v_a + v_b + c2)))
    return float(np.mean(found))


def test_ssim_agrees_with_a_slow_reference() -> None:
    y = images(3)
    x = damaged(y, 90)
    x[1] = 255 - y[1]
    found = ssim(x, y, peak=255)
    for i in range(3):
        channels = [slow_ssim(x[i, c].double().numpy(), y[i, c].double().numpy(), 255) for c in range(3)]
        assert float(found[i]) == pytest.approx(float(np.mean(channels)), abs=1e-10)
    assert float(found[1]) < 0 < float(found[0])
    score = ssim_score(x, y, split="val")
    assert score.value == pytest.approx(float(found.mean()))
    assert score.stderr == pytest.approx(float(found.std()) / math.sqrt(3))
    assert (score.name, score.unit, score.n) == ("ssim", "index", 3)
    assert score.protocol.endswith("peak 255, Gaussian window 11x11 of deviation 1.5, K1=0.01, K2=0.03")
    by_luma = ssim_score(x, y, split="val", colour="y", crop=1)
    expected = ssim(luma(x)[..., 1:-1, 1:-1], luma(y)[..., 1:-1, 1:-1], peak=255)
    assert by_luma.value == pytest.approx(float(expected.mean()))


def test_ssim_of_shades_has_a_closed_form() -> None:
    x, y = torch.full((1, 1, 11, 11), 60), torch.full((1, 1, 11, 11), 90)
    c1 = (0.01 * 255) ** 2
    assert float(ssim(x, y, peak=255)) == pytest.approx((2 * 60 * 90 + c1) / (60**2 + 90**2 + c1))
    z = images(2)
    assert ssim(z, z, peak=255).tolist() == pytest.approx([1, 1])
    assert ssim_score(z, z, split="test").value == pytest.approx(1)


# -- Either ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("score", [psnr_score, ssim_score])
def test_neither_batches_nor_order_matter_and_nothing_is_changed(score) -> None:  # type: ignore[no-untyped-def]
    y = images(7)
    x = damaged(y)
    kept = x.clone(), y.clone()
    whole = score(x, y, split="test")
    order = torch.randperm(7, generator=seeded(2))
    for batch_size in (1, 3):
        part = score(x[order], y[order], split="test", batch_size=batch_size)
        assert (part.value, part.stderr) == pytest.approx((whole.value, whole.stderr), rel=1e-12)
    assert torch.equal(x, kept[0])
    assert torch.equal(y, kept[1])
    assert score(x[:1], y[:1], split="test").stderr is None


@pytest.mark.parametrize("score", [psnr_score, ssim_score])
@pytest.mark.parametrize(
    ("x", "y", "settings", "message"),
    [
        (images() / 255, images(), {}, "restored images are taken as uint8 codes, not float32: round"),
        (images(), images().double(), {}, "references are taken as uint8 codes, not float64"),
        (images()[0], images()[0], {}, "are .N, C, H, W. with C = 1 or 3"),
        (images(channels=2), images(channels=2), {}, "C = 1 or 3"),
        (images(5), images(6), {}, "5 restored images and 6 references"),
        (images(channels=1), images(), {}, "the same channels"),
        (images(height=15), images(), {}, "a pair has one size"),
        (images(0), images(0), {}, "no images"),
        (images(channels=1), images(channels=1), {"colour": "y"}, "grey images have no Y"),
        (images(), images(), {"crop": 7}, "crop = 7 leaves nothing of images of 14x17"),
        (images(), images(), {"levels": 200}, "a code of .* where there are 200 levels"),
    ],
)
def test_what_are_no_pairs_is_refused(score, x: Tensor, y: Tensor, settings, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(DataError, match=message):
        score(x, y, split="test", **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"colour": "ycbcr"}, "'rgb' or 'y'"),
        ({"crop": -1}, "crop = -1"),
        ({"levels": 1}, "levels = 1"),
        ({"levels": 17, "colour": "y"}, "levels = 17: the Y"),
        ({"batch_size": 0}, "batch_size = 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match=message):
        psnr_score(images(), images(), split="test", **settings)


def test_images_smaller_than_the_window_have_no_ssim() -> None:
    with pytest.raises(DataError, match="11 pixels a side; images of 10x17"):
        ssim_score(images(height=10), images(height=10), split="test")
    with pytest.raises(DataError, match="images of 10x13 are smaller"):
        ssim_score(images(), images(), split="test", crop=2)


# -- LPIPS -------------------------------------------------------------------------------------------------------------


class Stub:
    """In place of the package's network: the mean difference of images that must be in [-1, 1]."""

    offline = False

    def __init__(self, net: str, version: str, verbose: bool) -> None:
        assert (version, verbose) == ("0.1", False)
        self.net = net
        warnings.warn("an old way of calling", UserWarning, stacklevel=2)  # as torchvision does
        if self.offline:
            raise OSError("no route to host")

    def eval(self) -> "Stub":
        return self

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        assert a.dtype == torch.float32
        for x in (a, b):
            assert float(x.min()) == pytest.approx(-1, abs=0.01)
            assert float(x.max()) == pytest.approx(1, abs=0.01)
        return (a - b).abs().flatten(1).mean(1).view(-1, 1, 1, 1)


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> type[Stub]:
    module = ModuleType("lpips")
    module.LPIPS = Stub  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lpips", module)
    monkeypatch.setattr(Stub, "offline", False)
    return Stub


def test_lpips_is_given_what_it_takes(package: type[Stub]) -> None:
    y = images(7, height=40, width=44)
    x = damaged(y)
    score = lpips_score(x, y, split="test", crop=4, batch_size=3, protocol="toy")
    a, b = x[..., 4:-4, 4:-4].double(), y[..., 4:-4, 4:-4].double()
    assert score.value == pytest.approx(float((a - b).abs().mean()) / 127.5, rel=1e-5)
    assert (score.name, score.unit, score.n) == ("lpips", "distance", 7)
    assert "RGB, 4 pixels cut off each border, peak 255, alex network of lpips" in score.protocol
    assert score.protocol.endswith("its weights 0.1; toy")


def test_lpips_says_what_is_missing(package: type[Stub], monkeypatch: pytest.MonkeyPatch) -> None:
    y = images(2, height=32, width=32)
    with pytest.raises(ConfigError, match="alex, vgg, squeeze"):
        lpips_score(y, y, split="test", network="resnet")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="these are grey"):
        lpips_score(y[:, :1], y[:, :1], split="test")
    with pytest.raises(DataError, match="need 32 pixels a side; of these images 30x30"):
        lpips_score(y, y, split="test", crop=1)
    monkeypatch.setattr(package, "offline", True)
    with pytest.raises(ConfigError, match=r"could not fetch the alex network \(no route to host"):
        lpips_score(y, y, split="test")
    monkeypatch.setitem(sys.modules, "lpips", None)  # as if it were not installed
    with pytest.raises(ConfigError, match=r"pip install -e '\.\[lpips\]'"):
        lpips_score(y, y, split="test")


def test_a_torchvision_that_does_not_fit_is_no_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lpips.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "lpips", raising=False)
    y = images(2, height=32, width=32)
    with pytest.raises(ConfigError, match="operator torchvision::nms does not exist"):
        lpips_score(y, y, split="test")
