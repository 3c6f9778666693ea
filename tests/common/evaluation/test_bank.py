"""A bank of features: the same set is the same tensor, and what does not compare is refused."""

import pytest
import torch
from torch import Tensor

from common.errors import DataError
from common.evaluation.bank import Bank, bank, check_pair
from common.evaluation.features import raw_pixels


def _rows(kind: str) -> Tensor:
    """Features (60, 4): all different, rectified (many zeros), whole rows equal, or equal but for the last column."""
    x = torch.randn(60, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return {"different": x, "rectified": x.relu(), "equal": x[torch.arange(60) % 7], "last": x * torch.eye(4)[3]}[kind]


@pytest.mark.parametrize("kind", ["different", "rectified", "equal", "last"])
def test_rows_are_sorted_as_python_sorts_lists(kind: str) -> None:
    x = _rows(kind)
    assert Bank().add(x).x.tolist() == sorted(x.tolist())


@pytest.mark.parametrize("kind", ["different", "rectified", "equal", "last"])
def test_neither_order_nor_batches_matter(kind: str) -> None:
    x = _rows(kind)
    whole = Bank().add(x)
    cut = Bank()
    for part in x[torch.randperm(60, generator=torch.Generator().manual_seed(1))].split([0, 1, 40, 19]):
        cut.add(part)
        assert len(cut.x) == cut.n  # looking at it in between changes nothing
    assert torch.equal(whole.x, cut.x)
    assert (cut.n, cut.dims, cut.x.dtype) == (60, 4, torch.float64)


def test_a_negative_zero_is_a_zero() -> None:
    a, b = (Bank().add(torch.tensor([[zero, 1.0], [0.0, 2.0]])).x for zero in (0.0, -0.0))
    assert a.tolist() == b.tolist()
    assert not b.signbit().any()


def test_what_was_taken_in_is_the_banks_own() -> None:
    x = torch.ones(2, 2, dtype=torch.float64)
    taken = Bank().add(x)
    x.zero_()
    assert taken.x.sum() == 4


def test_images_become_features_in_batches_of_any_size() -> None:
    codes = torch.randint(0, 256, (7, 1, 2, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = bank(raw_pixels((1, 2, 3)), codes, source="samples", split="test", batch_size=3)
    assert (found.network, found.source, found.split, found.n, found.dims) == ("raw-pixels", "samples", "test", 7, 6)
    assert found.x.tolist() == sorted((codes.flatten(1).double() / 255).tolist())
    assert bank(raw_pixels((1, 2, 3)), codes[:0], source="samples", split="test").n == 0


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (torch.ones(3), "features are \\(B, d\\)"),
        (torch.ones(3, 3), "features of 3 dimensions after features of 2"),
        (torch.tensor([[1.0, torch.nan]]), "not a finite number"),
        (torch.tensor([[-torch.inf, 1.0]]), "not a finite number"),
    ],
)
def test_what_is_no_feature_is_refused(features: Tensor, message: str) -> None:
    with pytest.raises(DataError, match=f"folder x: .*{message}"):
        Bank(source="folder x").add(torch.ones(1, 2)).add(features)


def _of(n: int, d: int = 2, network: str = "raw-pixels", split: str = "test", source: str = "samples") -> Bank:
    return Bank(network, source, split).add(torch.rand(n, d))


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (
            _of(5, network="lenet-mnist@a24bccc1"),
            "lenet-mnist@a24bccc1 .samples. .* raw-pixels .MNIST test.: make",
        ),
        (_of(5, network=""), "features of no network"),
        (_of(5, d=3), "3 dimensions .samples. do not compare with those of 2"),
        (_of(5, split="train"), "split 'train', and MNIST test is of 'test'"),
        (_of(3), "3 examples of samples are too few: it takes at least 5. Make or read 2 more"),
        (Bank("raw-pixels", "folder x", "test"), "folder x is empty; it takes at least 5"),
    ],
)
def test_what_does_not_compare_is_refused(samples: Bank, message: str) -> None:
    with pytest.raises(DataError, match=f"kid: .*{message}"):
        check_pair(samples, _of(6, source="MNIST test"), "kid", at_least=5)


def test_what_compares_passes() -> None:
    check_pair(_of(5), _of(5), "kid", at_least=5)
    check_pair(_of(5, split=""), _of(5), "kid", at_least=5)
    with pytest.raises(DataError, match="4 examples of MNIST test are too few"):
        check_pair(_of(5), _of(4, source="MNIST test"), "kid", at_least=5)
