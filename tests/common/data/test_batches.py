"""Batch streams: the order is a function of (seed, step), every example comes once an epoch."""

import pytest
import torch

from common.data import Batches, Split, in_order
from common.data.batches import permutation
from common.errors import DataError


def numbered(n: int = 23, shape: tuple[int, ...] = (1, 2, 4)) -> Split:
    """Example i is filled with i, and its label is 100 + i."""
    x = torch.arange(n, dtype=torch.uint8).view(n, *[1] * len(shape)).repeat(1, *shape)
    return Split(x, torch.arange(n) + 100)


def drawn(batches: Batches, steps: range) -> list[int]:
    """The numbers of the examples in these batches."""
    return [i for step in steps for i in batches(step).x.flatten(1)[:, 0].tolist()]


def test_order_is_a_function_of_seed_and_step():
    steps = range(40)
    whole = [Batches(numbered(), 5, seed=3)(step).x for step in steps]  # a new object each time
    stream = Batches(numbered(), 5, seed=3)
    for step in reversed(steps):
        assert torch.equal(stream(step).x, whole[step])


def test_every_example_once_an_epoch_in_another_order():
    batches = Batches(numbered(), 5, seed=0, drop_last=False)
    assert len(batches) == 5
    epochs = [drawn(batches, range(5 * e, 5 * e + 5)) for e in range(3)]
    assert all(sorted(epoch) == list(range(23)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in [*epochs, range(23)]}) == 4
    assert batches(4).x.shape == (3, 1, 2, 4)  # the short last batch
    assert [batches.epoch(step) for step in (0, 4, 5, 14, 15)] == [0, 0, 1, 2, 3]


def test_drop_last_leaves_out_other_examples_each_epoch():
    batches = Batches(numbered(), 5, seed=0)
    assert len(batches) == 4
    epochs = [set(drawn(batches, range(4 * e, 4 * e + 4))) for e in range(5)]
    assert all(len(epoch) == 20 for epoch in epochs)
    assert len(set(map(frozenset, epochs))) > 1


def test_neighbouring_seeds_and_epochs_are_unrelated():
    orders = {(s, e): permutation(1000, s, e) for s in range(8) for e in range(8)}
    for key, order in orders.items():
        for other_key, other in orders.items():
            # Two independent orders agree in 1 place on average; 10 or more come once in 10**7.
            assert key == other_key or int((order == other).sum()) < 10
    assert sorted(orders[0, 0].tolist()) == list(range(1000))


@pytest.mark.parametrize("shape", [(1, 2, 4), (3, 5), (7,)], ids=str)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32], ids=str)
def test_labels_shapes_and_types_come_along(shape, dtype):
    split = numbered(shape=shape)
    batches = Batches(Split(split.x.to(dtype), split.y), 5, seed=1)
    for step in range(8):
        x, y = batches(step)
        assert x.shape == (5, *shape)
        assert x.dtype == dtype
        assert x.is_contiguous()
        assert y is not None
        assert (x.flatten(1) + 100 == y[:, None]).all()


def test_split_that_is_a_view_in_the_midst_of_memory():
    x = torch.arange(1 + 8 * 9, dtype=torch.uint8)[1:].view(9, 8)  # not on a boundary of 8 bytes
    transposed = torch.arange(72, dtype=torch.uint8).view(8, 9).T
    for view in (x, transposed):
        batch = Batches(Split(view), 9, seed=0)(0)
        assert torch.equal(batch.x, view[permutation(9, 0, 0)])
        assert batch.y is None


def test_batches_are_copies():
    split = numbered()
    Batches(split, 5, seed=0)(0).x.zero_()
    assert torch.equal(split.x, numbered().x)


@pytest.mark.parametrize("world", [2, 3, 4])
@pytest.mark.parametrize("drop_last", [True, False])
def test_slices_of_all_processes_make_the_global_batch(world, drop_last):
    split = numbered(25)  # batches of 7, then 4
    whole = Batches(split, 7, seed=5, drop_last=drop_last, rank=0, world=1)
    parts = [Batches(split, 7, 5, drop_last=drop_last, rank=r, world=world) for r in range(world)]
    for step in range(2 * len(whole)):
        slices = [part(step) for part in parts]
        assert torch.equal(torch.cat([s.x for s in slices]), whole(step).x)
        assert torch.equal(torch.cat([s.y for s in slices]), whole(step).y)
        sizes = [len(s.x) for s in slices]
        assert max(sizes) - min(sizes) <= 1
        assert min(sizes) >= 1


def test_rank_and_world_come_from_torch_distributed(monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    here, second = Batches(numbered(), 6, seed=0), Batches(numbered(), 6, 0, rank=1, world=2)
    assert len(here(0).x) == 3
    assert torch.equal(here(0).x, second(0).x)


def test_in_order():
    batches = list(in_order(numbered(), 5))
    assert [len(batch.x) for batch in batches] == [5, 5, 5, 5, 3]
    assert torch.equal(torch.cat([batch.x for batch in batches]), numbered().x)
    assert torch.equal(torch.cat([batch.y for batch in batches]), numbered().y)
    assert [batch.y for batch in in_order(Split(numbered().x), 12)] == [None, None]


@pytest.mark.parametrize(
    ("n", "arguments", "message"),
    [
        (0, {"batch_size": 5}, "split is empty"),
        (23, {"batch_size": 0}, "batch_size is 0"),
        (23, {"batch_size": 24}, "larger than the split"),
        (23, {"batch_size": 5, "seed": -1}, "seed is -1"),
        (23, {"batch_size": 5, "rank": 2, "world": 2}, "rank 2 of 2"),
        (23, {"batch_size": 5, "rank": 0}, "go together"),
        (23, {"batch_size": 2, "rank": 0, "world": 3}, "A batch of 2 cannot be shared by 3"),
        (23, {"batch_size": 11, "drop_last": False, "rank": 0, "world": 2}, "A batch of 1 cannot"),
    ],
)
def test_what_cannot_be_is_refused(n, arguments, message):
    with pytest.raises(DataError, match=message):
        Batches(numbered(n), **{"seed": 0, **arguments})
    if n == 0 or arguments == {"batch_size": 0}:
        with pytest.raises(DataError):
            in_order(numbered(n), arguments["batch_size"])


def test_labels_must_match():
    with pytest.raises(DataError, match="23 examples and 22 labels"):
        Split(numbered().x, torch.arange(22))
