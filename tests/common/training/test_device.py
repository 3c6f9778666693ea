"""Where models run."""

import copy
import shutil

import pytest
import torch
from torch import nn

from common.errors import DeviceError
from common.training import EMA, pick_device, place


def test_devices_that_are_there():
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_devices_that_are_not(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for name in ("cuda", "cuda:0", "mps"):
        with pytest.raises(DeviceError, match=r"this machine has no.*Use auto or cpu"):
            pick_device(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert pick_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(DeviceError, match=r"only 2 CUDA GPU"):
        pick_device("cuda:2")


@pytest.mark.parametrize("name", ["cudda", "gpu", "cuda:x", "", "cpu "])
def test_unknown_devices(name):
    with pytest.raises(DeviceError, match="Unknown device"):
        pick_device(name)
    if name == "cudda":
        with pytest.raises(DeviceError, match="Did you mean 'cuda'"):
            pick_device(name)


def test_channels_last_changes_the_layout_and_not_the_numbers():
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 3), nn.Flatten(), nn.Linear(2 * 4 * 4, 1))
    model = place(copy.deepcopy(plain), torch.device("cpu"), channels_last=True)
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert EMA(model, 0.9).model[0].weight.is_contiguous(memory_format=torch.channels_last)
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(model(x), plain(x))


@pytest.mark.skipif(shutil.which("g++") is None and shutil.which("c++") is None, reason="needs a C++ compiler")
@pytest.mark.filterwarnings("ignore")
def test_compiling_changes_neither_names_nor_numbers():
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    model = place(copy.deepcopy(plain), torch.device("cpu"), compile=True)
    assert model.state_dict().keys() == plain.state_dict().keys()
    x = torch.randn(5, 3)
    torch.testing.assert_close(model(x), plain(x))
    assert model._compiled_call_impl is not None
    copied = EMA(model, 0.9).model  # an average of a compiled model is an ordinary one
    torch.testing.assert_close(copied(x), plain(x))
