"""`load`: the right content from any source, the wrong content from none."""

import errno
import gzip
import hashlib
import io
import multiprocessing
import os
import pickle
import platform
import sys
import tarfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from common import downloads
from common.data import load, names, registry
from common.data.sources import Address
from common.errors import DataError

CACHE = "cache/tiny"


@pytest.fixture
def bad_files(tiny):
    """Three ways for images.gz to be wrong."""
    header = b"\x00\x00\x08\x03" + np.array([12, 4, 4], ">u4").tobytes()
    changed = tiny.images.copy()
    changed[3, 2, 1] ^= 1
    return {
        "truncated": tiny.files["images.gz"][:-20],
        "one bit changed": gzip.compress(header + changed.tobytes()),
        "a pickle": pickle.dumps(tiny.images),
        "empty": b"",
    }


# --- Where it comes from -------------------------------------------------------------------------


def test_from_a_folder_of_the_path_list(tiny, tmp_path, monkeypatch):
    tiny.write(tmp_path / "b" / "tiny")
    monkeypatch.setenv("REFEREE_DATA", os.pathsep.join([str(tmp_path / "a"), str(tmp_path / "b")]))
    data = load("tiny")
    assert [len(split) for split in (data.train, data.val, data.test)] == [6, 2, 4]
    assert torch.equal(data.trainval.x[:, 0], torch.from_numpy(tiny.images[:8]))
    assert data.trainval.y is not None
    assert data.trainval.y.tolist() == list(range(8))
    assert data.source == str(tmp_path / "b" / "tiny")
    assert data.dims == 16
    assert data.train.x.dtype == torch.uint8
    assert "tiny" in repr(data)
    assert "256 levels" in repr(data)
    assert "6 x (1, 4, 4)" in repr(data)


def test_root_comes_first_and_may_be_the_folder_itself(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("REFEREE_DATA", str(tmp_path / "b"))
    for folder in ("a/tiny", "b/tiny", "c/Tiny/raw"):
        tiny.write(tmp_path / folder)
    assert load("tiny", root=tmp_path / "a").source == str(tmp_path / "a/tiny")
    assert load("tiny", root=tmp_path / "a/tiny").source == str(tmp_path / "a/tiny")
    assert load("tiny", root=tmp_path / "c").source == str(tmp_path / "c/Tiny/raw")
    with pytest.raises(DataError, match=r"nowhere.* is not a folder"):
        load("tiny", root=tmp_path / "nowhere")


def test_content_counts_and_not_the_file(tiny, tmp_path):
    """Another compression, another header, or none: the same digest."""
    plain = gzip.decompress(tiny.files["images.gz"])
    tiny.write(tmp_path / "a/tiny", images=gzip.compress(plain, 1, mtime=12345))
    for name, content in tiny.files.items():
        (tmp_path / "b/tiny").mkdir(parents=True, exist_ok=True)
        (tmp_path / "b/tiny" / name.removesuffix(".gz")).write_bytes(gzip.decompress(content))
    assert (tmp_path / "a/tiny/images.gz").read_bytes() != tiny.files["images.gz"]
    a, b = load("tiny", tmp_path / "a"), load("tiny", tmp_path / "b")
    assert a.sha256 == b.sha256 == tiny.entry().sha256


def test_downloaded_once_then_cached(server, tmp_path, capsys):
    assert load("tiny").source == f"{server.url}/"
    assert "images.gz" in capsys.readouterr().err  # the progress bar
    assert "the cache" in load("tiny").source
    assert server.requests == ["images.gz", "labels.gz"]
    assert sorted(os.listdir(tmp_path / CACHE)) == ["images.gz", "labels.gz"]


def test_the_next_source_when_one_fails(server, monkeypatch):
    missing = Address({"images.gz": f"{server.url}/elsewhere/images.gz"})
    entry = replace(registry.REGISTRY["tiny"], sources=(missing, server.address()))
    monkeypatch.setitem(registry.REGISTRY, "tiny", entry)
    assert load("tiny").source == f"{server.url}/"


# --- Content that is wrong -----------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["truncated", "one bit changed", "a pickle", "empty"])
def test_wrong_file_in_a_folder_is_named_and_not_used(fault, bad_files, server, tiny, tmp_path):
    folder = tiny.write(tmp_path / "a/tiny", images=bad_files[fault])
    with pytest.warns(UserWarning, match=r"images\.gz .*Not used"):
        data = load("tiny", tmp_path / "a")
    assert data.source == f"{server.url}/"
    assert torch.equal(data.train.x[:, 0], torch.from_numpy(tiny.images[:6]))
    assert (folder / "images.gz").read_bytes() == bad_files[fault]  # not ours to move


@pytest.mark.parametrize("fault", ["truncated", "one bit changed", "a pickle", "empty"])
def test_corrupted_cache_file_is_set_aside(fault, bad_files, server, tiny, tmp_path):
    tiny.write(tmp_path / CACHE, images=bad_files[fault])
    with pytest.warns(UserWarning, match=r"images\.gz .* set aside as images\.gz\.bad-[0-9a-f]{8}"):
        data = load("tiny")
    assert torch.equal(data.train.x[:, 0], torch.from_numpy(tiny.images[:6]))
    aside = [path for path in (tmp_path / CACHE).iterdir() if ".bad-" in path.name]
    assert len(aside) == 1, "only the file at fault"
    assert aside[0].read_bytes() == bad_files[fault]
    assert "the cache" in load("tiny").source


def test_corrupted_cache_and_no_way_to_fetch(bad_files, tiny, tmp_path):
    tiny.write(tmp_path / CACHE, images=bad_files["one bit changed"])
    with pytest.warns(UserWarning, match="set aside"), pytest.raises(DataError, match=r"images\.gz .*set aside"):
        load("tiny")


def test_wrong_content_from_a_server_never_enters_the_cache(bad_files, server, tmp_path):
    server.files["images.gz"] = bad_files["one bit changed"]
    with pytest.raises(DataError, match=r"images\.gz has other content than the known tiny"):
        load("tiny")
    assert os.listdir(tmp_path / CACHE) == []


def test_truncated_download(server, tmp_path):
    server.cut = 7
    size = len(server.files["images.gz"])
    with pytest.raises(DataError, match=rf"images\.gz was cut off after {size - 7} of {size} bytes"):
        load("tiny")
    assert os.listdir(tmp_path / CACHE) == []
    server.cut = 0
    assert len(load("tiny").train) == 6


def test_labels_and_split_boundaries_are_part_of_the_content(tiny):
    splits = tiny.assemble({"images": tiny.images, "labels": tiny.labels})
    moved = {**splits, "train": splits["val"], "val": splits["train"]}
    relabelled = {**splits, "test": replace(splits["test"], y=splits["test"].y + 1)}
    reshaped = {**splits, "test": replace(splits["test"], x=splits["test"].x.reshape(4, 1, 2, 8))}
    variants = [splits, moved, relabelled, reshaped]
    assert len({registry.content_digest(variant) for variant in variants}) == 4


# --- When nothing can be had ---------------------------------------------------------------------


def test_error_lists_every_source_with_its_reason(tiny, server, tmp_path, monkeypatch):
    (tmp_path / "b/tiny").mkdir(parents=True)
    monkeypatch.setenv("REFEREE_DATA", os.pathsep.join([str(tmp_path / "a"), str(tmp_path / "b")]))
    nobody = Address({"images.gz": "http://127.0.0.1:9/images.gz"})
    missing = Address({"images.gz": f"{server.url}/elsewhere/images.gz"})
    monkeypatch.setitem(registry.REGISTRY, "tiny", tiny.entry(nobody, missing))
    with pytest.raises(DataError) as error:
        load("tiny")
    lines = str(error.value).splitlines()
    for line, parts in zip(
        lines[1:],
        [
            (f"1. {tmp_path / 'a/tiny'}", "no such folder"),
            (f"2. {tmp_path / 'b/tiny'}", "images.gz and labels.gz not there"),
            (f"3. the cache, {tmp_path / CACHE}", "not there"),
            ("4. http://127.0.0.1:9/", "no answer for images.gz (", "refused"),
            (f"5. {server.url}/elsewhere/", "the server answered 404"),
            ("What to do", "images.gz labels.gz", "REFEREE_DATA"),
        ],
        strict=True,
    ):
        assert all(part in line for part in parts), line


def test_unknown_name():
    with pytest.raises(DataError, match="Did you mean 'fashion_mnist'"):
        load("fasion_mnist")
    with pytest.raises(DataError, match=r"toy\.density\('ring8'\)"):
        load("ring8")


def test_cache_that_cannot_be_written(server, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("REFEREE_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match="set REFEREE_CACHE"):
        load("tiny")


def test_disk_full(server, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(downloads, "_receive", full)
    with pytest.raises(DataError, match=r"No space left on device.*with space"):
        load("tiny")
    assert os.listdir(tmp_path / CACHE) == []


# --- Several at once -----------------------------------------------------------------------------


def _load_in_a_process(answers) -> None:
    data = load("tiny")
    answers.put((data.sha256, int(data.train.x.sum())))


@pytest.mark.parametrize("locks", [True, False], ids=["with locks", "without locks"])
def test_two_processes_at_once(locks, server, tiny, monkeypatch, tmp_path):
    """With the lock the files are fetched once; where there is none, twice. Both end well."""
    if not locks:
        monkeypatch.setitem(sys.modules, "fcntl", None)  # makes its import fail
    server.wait_s = 0.3
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    processes = [context.Process(target=_load_in_a_process, args=(answers,)) for _ in range(2)]
    for process in processes:
        process.start()
    expected = (tiny.entry().sha256, int(tiny.images[:6].astype(int).sum()))
    assert [answers.get(timeout=20) for _ in processes] == [expected] * 2
    for process in processes:
        process.join()
    assert len(server.requests) == (2 if locks else 4)
    assert sorted(os.listdir(tmp_path / CACHE)) == ["images.gz", "labels.gz"]


def _in_processes(count, answers, target=_load_in_a_process):
    processes = [multiprocessing.get_context("fork").Process(target=target, args=(answers,)) for _ in range(count)]
    for process in processes:
        process.start()
    return processes


def test_of_eight_processes_one_downloads_and_the_others_wait(server, tiny, tmp_path):
    server.wait_s = 0.5
    answers = multiprocessing.get_context("fork").Queue()
    processes = _in_processes(8, answers)
    expected = (tiny.entry().sha256, int(tiny.images[:6].astype(int).sum()))
    assert [answers.get(timeout=60) for _ in processes] == [expected] * 8
    for process in processes:
        process.join()
    assert server.requests == ["images.gz", "labels.gz"]
    assert sorted(os.listdir(tmp_path / CACHE)) == ["images.gz", "labels.gz"]


@pytest.fixture
def waits(monkeypatch):
    """A queue into which each process puts what it says before it waits for another."""
    said = multiprocessing.get_context("fork").Queue()
    monkeypatch.setattr(downloads, "print", lambda text, **_: said.put(text), raising=False)
    return said


def test_when_the_one_that_downloads_is_killed_the_next_takes_over(server, tiny, tmp_path, waits):
    server.may_answer.clear()
    answers = multiprocessing.get_context("fork").Queue()
    (killed,) = _in_processes(1, answers)
    until(lambda: server.requests)
    waiting = _in_processes(2, answers)
    for _ in waiting:
        assert "tiny: waiting" in waits.get(timeout=60)
    killed.kill()
    killed.join()
    server.may_answer.set()
    expected = (tiny.entry().sha256, int(tiny.images[:6].astype(int).sum()))
    assert [answers.get(timeout=60) for _ in waiting] == [expected] * 2
    for process in waiting:
        process.join()
    assert server.requests == ["images.gz", "images.gz", "labels.gz"]
    assert sorted(os.listdir(tmp_path / CACHE)) == ["images.gz", "labels.gz"]


def _fail_in_a_process(answers) -> None:
    with pytest.raises(DataError) as error:
        load("tiny")
    answers.put(str(error.value))


def test_when_the_one_that_downloads_fails_those_who_waited_do_not_try_again(server, tiny, waits, tmp_path):
    server.files.clear()
    server.may_answer.clear()
    answers = multiprocessing.get_context("fork").Queue()
    processes = _in_processes(1, answers, _fail_in_a_process)
    until(lambda: server.requests)
    processes += _in_processes(3, answers, _fail_in_a_process)
    for _ in processes[1:]:
        waits.get(timeout=60)
    server.may_answer.set()
    said = sorted((answers.get(timeout=60) for _ in processes), key=len)
    for process in processes:
        process.join()
    assert server.requests == ["images.gz"]
    assert said[0].startswith("tiny could not be had")
    assert all(text.startswith("Another process could not fetch it") and said[0] in text for text in said[1:])
    server.files.update(tiny.files)
    assert load("tiny").train.x.shape[0] == 6  # who comes later tries
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == [".tiny.lock", "tiny"]  # no word of it


def _load_twin_in_a_process(answers) -> None:
    answers.put(load("twin").source)


def test_who_waited_for_another_data_set_of_the_same_folder_tries(server, tiny, waits, monkeypatch):
    files = server.address().files
    missing = Address({name: f"{server.url}/elsewhere/{name}" for name in files})
    monkeypatch.setitem(registry.REGISTRY, "tiny", tiny.entry(missing))
    monkeypatch.setitem(registry.REGISTRY, "twin", replace(tiny.entry(server.address()), name="twin"))
    server.may_answer.clear()
    answers = multiprocessing.get_context("fork").Queue()
    processes = _in_processes(1, answers, _fail_in_a_process)
    until(lambda: server.requests)
    processes += _in_processes(1, answers, _load_twin_in_a_process)
    waits.get(timeout=60)
    server.may_answer.set()
    assert {answers.get(timeout=60)[:22] for _ in processes} == {"tiny could not be had.", f"{server.url}/"[:22]}
    for process in processes:
        process.join()


def until(what) -> None:
    for _ in range(600):
        if what():
            return
        time.sleep(0.05)
    pytest.fail("it did not come to this")


def test_a_complete_cache_is_only_read(tiny, tmp_path, monkeypatch):
    """It may be mounted read-only: no lock, no file, no folder."""
    tiny.write(tmp_path / CACHE)

    def forbidden(*_, **__):
        raise AssertionError("something was to be written")

    for module, name in ((registry, "only_one"), (Path, "mkdir"), (Path, "write_text"), (os, "replace")):
        monkeypatch.setattr(module, name, forbidden)
    assert "the cache" in load("tiny").source
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["tiny"]


def test_a_cache_that_may_only_be_read_and_is_not_complete(server, tmp_path, monkeypatch):
    def read_only(self, *_, **__):
        raise OSError(errno.EROFS, "Read-only file system", str(self))

    monkeypatch.setattr(Path, "mkdir", read_only)
    with pytest.raises(DataError, match=r"tiny is not in the cache .*Read-only file system.*referee fetch <paper>"):
        load("tiny")
    assert server.requests == []


@pytest.mark.parametrize("value", ["1", "yes"])
def test_offline_no_source_is_asked_and_nothing_is_locked(value, server, tmp_path, monkeypatch):
    monkeypatch.setenv("REFEREE_OFFLINE", value)
    with pytest.raises(DataError) as error:
        load("tiny")
    assert "tiny is not on this machine" in str(error.value)
    assert f"1. {tmp_path / 'cache/tiny'}" not in str(error.value)
    assert f"1. the cache, {tmp_path / 'cache/tiny'}: no such folder" in str(error.value)
    assert "referee fetch <paper>" in str(error.value)
    assert "set REFEREE_DATA=<folder>" in str(error.value)
    assert server.requests == []
    assert not (tmp_path / "cache").exists()


def test_offline_says_what_is_wrong_with_the_cache(bad_files, tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("REFEREE_OFFLINE", "1")
    tiny.write(tmp_path / CACHE, images=bad_files["one bit changed"])
    with pytest.raises(DataError, match=r"images\.gz has other content"):
        load("tiny")
    assert sorted(os.listdir(tmp_path / CACHE)) == ["images.gz", "labels.gz"]  # left alone, as anybody may be reading


@pytest.mark.parametrize("value", ["", "0"])
def test_not_offline(value, server, monkeypatch):
    monkeypatch.setenv("REFEREE_OFFLINE", value)
    assert load("tiny").source == f"{server.url}/"


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks(number, server, tmp_path, monkeypatch):
    import fcntl

    def refused(*_):
        raise OSError(number, "no locks here")

    monkeypatch.setattr(fcntl, "flock", refused)
    other = tmp_path / CACHE / f".partial-{platform.node()}-abc"
    other.mkdir(parents=True)
    assert load("tiny").source == f"{server.url}/"
    assert other.is_dir()  # perhaps somebody's who fetches right now


def test_a_lock_that_fails_for_another_reason_is_an_error(server, monkeypatch):
    import fcntl

    def refused(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", refused)
    with pytest.raises(DataError, match="Input/output error"):
        load("tiny")


def test_what_a_killed_process_left_behind_is_removed(server, tmp_path):
    names = [f".partial-{platform.node()}-abc", ".partial-another-abc", ".partial-another-old"]
    for name in names:
        partial = tmp_path / CACHE / name
        partial.mkdir(parents=True)
        (partial / "images.gz").write_bytes(b"half")
    os.utime(partial, (0, 0))
    load("tiny")
    assert sorted(os.listdir(tmp_path / CACHE)) == [".partial-another-abc", "images.gz", "labels.gz"]


# --- The data sets themselves --------------------------------------------------------------------


def test_names():
    assert set(names()) >= {"mnist", "fashion_mnist", "binarized_mnist", "dynamic_mnist", "digits"}
    assert set(names()) >= {"cifar10", "omniglot", "frey_faces", "uci_dna", "uci_mushrooms", "uci_nips"}


EXPECTED = {
    # name: (sizes, shape, levels, classes)
    "digits": ((1_297, 200, 300), (1, 8, 8), 17, 10),
    "mnist": ((50_000, 10_000, 10_000), (1, 28, 28), 256, 10),
    "fashion_mnist": ((50_000, 10_000, 10_000), (1, 28, 28), 256, 10),
    "binarized_mnist": ((50_000, 10_000, 10_000), (1, 28, 28), 2, None),
    "dynamic_mnist": ((50_000, 10_000, 10_000), (1, 28, 28), 256, 10),
    "frey_faces": ((1_565, 200, 200), (1, 28, 20), 256, None),
    "uci_dna": ((1_400, 600, 1_186), (180,), 2, None),
    "uci_mushrooms": ((2_000, 500, 5_624), (112,), 2, None),
    "uci_nips": ((400, 100, 1_240), (500,), 2, None),
}
REPEATED = {"uci_dna": 185, "uci_nips": 1}  # examples that occur more than once, in the files as published


@pytest.mark.parametrize("name", EXPECTED)
def test_real_set(name, real):
    """Pinned content, the sizes everybody knows, and no example in two splits, or twice in one."""
    data = real(name)
    sizes, shape, levels, classes = EXPECTED[name]
    splits = (data.train, data.val, data.test)
    assert tuple(len(split) for split in splits) == sizes
    assert data.levels == levels
    assert data.sha256 == registry.REGISTRY[name].sha256
    for split in splits:
        assert split.x.dtype == torch.uint8
        assert split.x.shape[1:] == shape
        assert split.x.is_contiguous()
        assert int(split.x.max()) < levels
        if classes is None:
            assert split.y is None
        else:
            assert split.y.dtype == torch.int64
            assert len(split.y.unique()) == classes
    every = np.concatenate([split.x.numpy().reshape(len(split), -1) for split in splits])
    assert len({row.tobytes() for row in every}) == sum(sizes) - REPEATED.get(name, 0)


def test_dynamic_mnist_is_mnist_with_a_binary_test_set(real):
    grey, data = real("mnist"), real("dynamic_mnist")
    assert torch.equal(data.train.x, grey.train.x)
    assert torch.equal(data.val.x, grey.val.x)
    assert data.test.x.unique().tolist() == [0, 255]
    # Each pixel is 255 with probability grey / 255: the mean over 7.8 million of them, to 5 errors.
    p = grey.test.x.double() / 255
    error = (p * (1 - p)).sum().sqrt() / p.numel()
    assert abs(data.test.x.double().mean() / 255 - p.mean()) < 5 * error
    assert torch.equal(data.test.x[grey.test.x == 255].unique(), torch.tensor([255]).byte())


def test_the_uci_sets_from_the_canonical_archive(real, tmp_path):
    """Archives of other numbers and other compression: one content. Features coded one by one are one-hot."""
    data = real("uci_mushrooms")
    parts = {"train": data.train, "valid": data.val, "test": data.test}
    (tmp_path / "uci_binary").mkdir()
    floats = {f"{name}_data": part.x.numpy().astype(np.float32) for name, part in parts.items()}
    np.savez(tmp_path / "uci_binary/mushrooms.npz", inputsize=112, **floats)
    assert load("uci_mushrooms", tmp_path).sha256 == data.sha256
    assert (data.test.x.sum(1) == 21).all()  # 21 attributes of a mushroom, each one of a few values
    floats["valid_data"][3, 5] = 1 - floats["valid_data"][3, 5]
    np.savez(tmp_path / "uci_binary/mushrooms.npz", **floats)
    with pytest.warns(UserWarning, match=r"mushrooms\.npz has other content than the known uci_mushrooms"):
        assert load("uci_mushrooms", tmp_path).source != str(tmp_path / "uci_binary")


def test_frey_faces_from_the_canonical_file(real, tmp_path):
    """The .mat of the original page and an archive of images: one content."""
    from scipy.io import savemat

    data = real("frey_faces")
    images = torch.cat([data.train.x, data.val.x, data.test.x])[:, 0].numpy()
    images = images[np.argsort(np.random.RandomState(0).permutation(1965))]
    (tmp_path / "frey_faces").mkdir()
    savemat(tmp_path / "frey_faces/frey_rawface.mat", {"ff": images.reshape(1965, 560).T})
    other = load("frey_faces", tmp_path)
    assert other.source == str(tmp_path / "frey_faces")
    assert other.sha256 == data.sha256


@pytest.fixture
def small_omniglot(monkeypatch, tmp_path):
    """chardata.mat with 40 and 10 characters instead of 24,345 and 8,070."""
    from scipy.io import savemat

    rng = np.random.default_rng(0)
    codes = {"data": rng.integers(0, 256, (784, 40)), "testdata": rng.integers(0, 256, (784, 10))}
    alphabets = {"target": np.arange(40) % 50, "testtarget": np.arange(10) % 50}

    def write(folder: Path, **changed: np.ndarray) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        content = {key: value / 255.0 for key, value in codes.items()}
        content |= {key: np.eye(50)[:, value] for key, value in alphabets.items()}
        savemat(folder / "chardata.mat", {**content, **changed}, do_compression=True)

    entry = registry.REGISTRY["omniglot"]
    sizes = {"train_images": 40, "train_labels": 40, "test_images": 10, "test_labels": 10}
    entry = replace(
        entry,
        arrays={name: ((n, *entry.arrays[name][0][1:]), None) for name, n in sizes.items()},
        assemble=lambda arrays: registry._omniglot(arrays, n_val=5),
        sources=(),
    )
    monkeypatch.setitem(registry.REGISTRY, "omniglot", entry)
    write(tmp_path / "a/omniglot")
    return codes, alphabets, write


def test_omniglot_is_upright_and_split_like_the_paper(small_omniglot, tmp_path):
    codes, alphabets, _ = small_omniglot
    with pytest.warns(UserWarning, match="No digest of omniglot is pinned"):
        data = load("omniglot", tmp_path / "a")
    assert [len(split) for split in (data.train, data.val, data.test)] == [35, 5, 10]
    # MATLAB stores columns: the pixel after (row, column) in the file is (row + 1, column).
    first = data.test.x[0, 0]
    assert first[:2, 0].tolist() == codes["testdata"][:2, 0].tolist()
    assert first[0, 1] == codes["testdata"][28, 0]
    order = np.random.RandomState(123).permutation(40)
    assert data.val.y is not None
    assert data.val.y.tolist() == alphabets["target"][order[-5:]].tolist()
    assert (data.val.x[4, 0].T.flatten().numpy() == codes["data"][:, order[-1]]).all()


@pytest.fixture
def small_cifar10(monkeypatch, tmp_path):
    """The archive with 20 images in each of its six batches instead of 10,000."""
    records = np.random.default_rng(0).integers(0, 256, (120, 3_073)).astype(np.uint8)
    records[:, 0] %= 10

    def write(folder: Path, records: np.ndarray) -> str:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "cifar-10-binary.tar.gz"
        batches = [f"data_batch_{i}" for i in (3, 1, 5, 2, 4)] + ["test_batch"]  # in the real archive's disorder
        parts = dict(zip(sorted(batches), np.split(records, 6), strict=True))
        with tarfile.open(path, "w:gz") as archive:
            for name in batches:
                member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}.bin")
                member.size = parts[name].size
                archive.addfile(member, io.BytesIO(parts[name].tobytes()))
        return hashlib.sha256(path.read_bytes()).hexdigest()

    digest = write(tmp_path / "a/cifar10", records)
    entry = replace(
        registry.REGISTRY["cifar10"],
        arrays={"train": ((100, 3_073), None), "test": ((20, 3_073), None)},
        files_sha256={"cifar-10-binary.tar.gz": digest},
        sources=(),
    )
    monkeypatch.setitem(registry.REGISTRY, "cifar10", entry)
    return records, write


def test_cifar10_is_in_order_and_colour(small_cifar10, tmp_path, recwarn):
    records, _ = small_cifar10
    data = load("cifar10", tmp_path / "a")
    assert not recwarn.list, "the file's digest is known, there is nothing to trust"
    assert [len(split) for split in (data.train, data.val, data.test)] == [90, 10, 20]
    assert data.train.y is not None
    assert data.trainval.y.tolist() == records[:100, 0].tolist()
    assert torch.equal(data.trainval.x.flatten(1), torch.from_numpy(records[:100, 1:]))
    # A record is a label, 1,024 reds row by row, the greens, the blues.
    assert data.test.x[3, 2, 5, 7] == records[103, 1 + 2 * 1024 + 5 * 32 + 7]


def test_cifar10_of_another_archive_is_refused(small_cifar10, tmp_path):
    records, write = small_cifar10
    write(tmp_path / "b/cifar10", np.where(records == 7, 8, records).astype(np.uint8))
    with pytest.warns(UserWarning, match="not the known file"), pytest.raises(DataError):
        load("cifar10", tmp_path / "b")


def test_without_a_pinned_digest_the_first_content_must_stay(small_omniglot, tmp_path, recwarn):
    codes, _, write = small_omniglot
    first = load("omniglot", tmp_path / "a")
    assert first.sha256 in str(recwarn.pop(UserWarning).message)
    assert load("omniglot", tmp_path / "a").sha256 == first.sha256
    assert not recwarn.list, "said once, not every time"
    changed = codes["data"] / 255.0
    changed[0, 0] = 1 - changed[0, 0]
    write(tmp_path / "b/omniglot", data=changed)
    with pytest.warns(UserWarning, match="other content"), pytest.raises(DataError):
        load("omniglot", tmp_path / "b")


def test_omniglot_outside_the_unit_interval_is_refused(small_omniglot, tmp_path):
    codes, _, write = small_omniglot
    write(tmp_path / "b/omniglot", data=codes["data"].astype(float))
    with pytest.warns(UserWarning, match=r"outside \[0, 1\]"), pytest.raises(DataError):
        load("omniglot", tmp_path / "b")
