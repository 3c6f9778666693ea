"""What is equal to the bit is counted, and nothing else."""

import torch

from common.evaluation.duplicates import fingerprints, repeats, shared


def test_equal_images_have_equal_digests_and_others_have_not() -> None:
    x = torch.randint(0, 2, (300, 1, 3, 3), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    rows = [tuple(each) for each in x.flatten(1).tolist()]
    marks = fingerprints(x)
    assert repeats(marks) == len(rows) - len(set(rows)) > 0
    assert shared(marks, fingerprints(x[:40])) == sum(row in set(rows[:40]) for row in rows) > 40
    turned = fingerprints(x.transpose(2, 3))  # of memory in another order
    assert turned == fingerprints(x.transpose(2, 3).contiguous()) != marks


def test_the_slightest_change_is_one() -> None:
    x = torch.zeros(1, 1, 40, 40, dtype=torch.uint8)
    changed = x.repeat(1600, 1, 1, 1).view(1600, -1)
    changed += torch.eye(1600, dtype=torch.uint8)
    marks = fingerprints(changed.view(-1, 1, 40, 40))
    assert repeats(marks) == 0
    assert shared(marks, fingerprints(x)) == 0


def test_features_count_too_and_nothing_shares_nothing() -> None:
    x = torch.tensor([[1.0, 2.0], [1.0, 2.0 + 1e-12]], dtype=torch.float64)
    assert repeats(fingerprints(x)) == 0
    assert shared(fingerprints(x), fingerprints(x[1:])) == 1
    apart = torch.arange(12.0).view(3, 4)[:, ::2]  # whose rows are not in one piece
    assert fingerprints(apart) == fingerprints(apart.clone())
    assert shared([], fingerprints(x)) == shared(fingerprints(x), []) == repeats([]) == 0
