"""Feature networks: their names say what they are, to the bit, and they take images as the data has them."""

import dataclasses
import hashlib
import shutil
import sys
import types
from pathlib import Path

import pytest
import torch
from torch import Tensor

from common.data import Compose, Dequantise, Logit, Scale, Split, load, registry
from common.errors import ConfigError, DataError
from common.evaluation import features as extractors
from common.evaluation import lenet as training
from common.evaluation.features import inception, lenet, raw_pixels
from common.evaluation.lenet import SHA256, WEIGHTS, LeNet, accuracy

PAGE = Path(__file__).parents[3] / "docs" / "features.md"


def images(n: int, *shape: int) -> Tensor:
    return torch.randint(0, 256, (n, *shape), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


@pytest.mark.parametrize("dataset", list(SHA256))
def test_the_name_is_the_weights_digest(dataset: str) -> None:
    content = (WEIGHTS / f"lenet-{dataset}.safetensors").read_bytes()
    features = lenet(dataset)
    assert features.name == f"lenet-{dataset}@{hashlib.sha256(content).hexdigest()[:8]}"
    assert features(images(5, 1, 28, 28)).shape == (5, features.dims)


def test_features_are_what_the_classifier_decides_by() -> None:
    x = images(64, 1, 28, 28)
    network = LeNet()
    network.load_state_dict(extractors.parse((WEIGHTS / "lenet-mnist.safetensors").read_bytes()))
    features = lenet("mnist")
    torch.testing.assert_close(network.head(features(x)), network(x.float() / 255))
    one_by_one = torch.cat([features(x[i : i + 1]) for i in range(64)])
    torch.testing.assert_close(features(x), one_by_one, rtol=1e-4, atol=1e-4)
    assert torch.equal(features(x), features(x))


def test_changed_or_missing_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extractors, "WEIGHTS", tmp_path)
    with pytest.raises(DataError, match=r"lenet-mnist\.safetensors: there are no weights"):
        lenet("mnist")
    path = Path(shutil.copy(WEIGHTS / "lenet-mnist.safetensors", tmp_path))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"published weights with {SHA256['mnist'][:8]}"):
        lenet("mnist")
    with pytest.raises(ConfigError, match=r"no LeNet for 'fasion_mnist'\. Did you mean 'fashion_mnist'"):
        lenet("fasion_mnist")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.zeros(2, 1, 28, 28), "uint8 codes, not float32"),
        (torch.zeros(2, 1, 28, 28, dtype=torch.int64), "uint8 codes, not int64"),
        (images(2, 3, 28, 28), r"\(B, 1, 28, 28\); these are \(2, 3, 28, 28\)"),
        (images(2, 1, 8, 8), r"these are \(2, 1, 8, 8\)"),
        (images(2, 784), r"these are \(2, 784\)"),
    ],
)
def test_what_is_not_an_image_of_the_data_is_refused(bad: Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message):
        lenet("mnist")(bad)


def test_raw_pixels_run_from_black_to_white() -> None:
    for levels in (256, 17):
        codes = torch.tensor([0, levels - 1, 3, 1], dtype=torch.uint8).view(1, 1, 2, 2)
        expected = torch.tensor([[0.0, 1.0, 3 / (levels - 1), 1 / (levels - 1)]]).double()
        torch.testing.assert_close(raw_pixels((1, 2, 2), levels)(codes), expected)
    with pytest.raises(DataError, match="a code of 30, where there are 17 levels"):
        raw_pixels((1, 2, 2), 17)(codes + 14)
    wide = raw_pixels((3, 2, 5))
    assert wide.dims == 30
    assert wide(images(4, 3, 2, 5)).shape == (4, 30)


@pytest.mark.parametrize("preprocess", [Scale(256), Compose(Dequantise(256), Logit(0.05)), Dequantise(256)], ids=repr)
def test_images_as_a_model_has_them_come_back_as_codes(preprocess: object) -> None:
    """Every one of the 256 codes: half a level lost on the way would shift all features."""
    codes = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    x, _ = preprocess.encode(codes, torch.Generator().manual_seed(0))  # type: ignore[attr-defined]
    decoded = preprocess.decode(x)  # type: ignore[attr-defined]
    raw = raw_pixels((1, 16, 16))
    assert torch.equal(raw(decoded), raw(codes))


def test_training_is_repeatable_and_learns() -> None:
    digits = load("digits")
    grown = [
        Split(torch.nn.functional.pad((s.x * 15).repeat_interleave(3, 2).repeat_interleave(3, 3), (2, 2, 2, 2)), s.y)
        for s in (digits.train, digits.val)
    ]
    first, second = (training.train(*grown, passes=3, progress=False) for _ in range(2))
    assert all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )
    assert accuracy(first, grown[1]) > 0.7  # chance is 0.1
    right = [int(first(x[None].float() / 255).argmax()) == int(y) for x, y in zip(grown[1].x, grown[1].y, strict=True)]
    assert accuracy(first, grown[1]) == sum(right) / len(right)


@pytest.mark.parametrize(("dataset", "test_accuracy"), [("mnist", 0.9926), ("fashion_mnist", 0.9001)])
def test_the_stated_accuracy(dataset: str, test_accuracy: float, monkeypatch: pytest.MonkeyPatch) -> None:
    offline = dataclasses.replace(registry.REGISTRY[dataset], sources=())
    monkeypatch.setitem(registry.REGISTRY, dataset, offline)
    try:
        data = load(dataset)
    except DataError:
        pytest.skip(f"{dataset} is not on this machine: set REFEREE_DATA to a folder that holds it")
    network = LeNet()
    network.load_state_dict(extractors.parse((WEIGHTS / f"lenet-{dataset}.safetensors").read_bytes()))
    assert accuracy(network, data.test) == pytest.approx(test_accuracy, abs=2e-4)
    stated = f"{test_accuracy:.2%}".replace("%", " %")
    assert f"test {stated}" in str(training.__doc__)
    row = next(line for line in PAGE.read_text().splitlines() if line.startswith(f"| `{lenet(dataset).name}` "))
    assert row.endswith(f", {stated} |")


# -- Inception --------------------------------------------------------------------------------------------------------


def test_without_torch_fidelity_one_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(ConfigError, match=r"pip install -e '\.\[fid\]'"):
        inception()


def test_where_torchvision_does_not_fit_torch_one_message_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    package = types.ModuleType("torch_fidelity")
    package.__path__ = []
    module = types.ModuleType("torch_fidelity.feature_extractor_inceptionv3")

    def broken(name: str) -> object:
        raise RuntimeError("operator torchvision::nms does not exist")

    module.__getattr__ = broken  # type: ignore[method-assign]
    monkeypatch.setitem(sys.modules, "torch_fidelity", package)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    with pytest.raises(ConfigError, match=r"torchvision that fits torch.*::nms does not exist.*pip install"):
        inception()


def test_inception_is_called_as_torch_fidelity_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Network(torch.nn.Module):
        def __init__(self, name: str, features_list: list[str]) -> None:
            super().__init__()
            assert (name, features_list) == ("inception-v3-compat", ["2048"])

        def forward(self, x: Tensor) -> tuple[Tensor]:
            assert x.dtype == torch.uint8
            assert not self.training
            return (x.float().mean((1, 2, 3))[:, None].expand(-1, 2048),)

    module = types.ModuleType("torch_fidelity.feature_extractor_inceptionv3")
    module.FeatureExtractorInceptionV3 = Network  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch_fidelity", types.ModuleType("torch_fidelity"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    network = inception()
    assert network.name.startswith("inception-")
    assert network(images(3, 3, 32, 40)).shape == (3, network.dims)
    with pytest.raises(DataError, match=r"\(B, 3, any, any\)"):
        network(images(3, 1, 28, 28))
