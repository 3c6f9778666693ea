"""Readers: right arrays from right files, a reason from wrong ones, and no code run from any."""

import gzip
import io
import os
import pickle
import struct
import tarfile

import numpy as np
import pytest

from common.data import formats
from common.data.formats import Unreadable

BITS = np.random.default_rng(0).integers(0, 2, (5, 12), np.uint8)


class Payload:
    """Unpickling it creates the folder named by `path`."""

    def __init__(self, path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("compress", [lambda x: x, gzip.compress], ids=["plain", "gzipped"])
def test_idx(tmp_path, compress):
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    header = struct.pack(">BBBB3I", 0, 0, 8, 3, 2, 3, 4)
    (tmp_path / "a").write_bytes(compress(header + array.tobytes()))
    assert np.array_equal(formats.idx(tmp_path / "a"), array)
    for wrong in (array.tobytes()[:-1], array.tobytes() + b"\0"):
        (tmp_path / "a").write_bytes(compress(header + wrong))
        with pytest.raises(Unreadable, match=r"2[35] bytes of data, 24 announced"):
            formats.idx(tmp_path / "a")


def test_amat(tmp_path):
    text = "\n".join(" ".join(map(str, row)) for row in BITS) + " \n"
    (tmp_path / "a").write_text(text)
    assert np.array_equal(formats.amat(12)(tmp_path / "a"), BITS)
    (tmp_path / "a").write_text(text[:-8])
    with pytest.raises(Unreadable, match="truncated"):
        formats.amat(12)(tmp_path / "a")
    (tmp_path / "a").write_text(text.replace("1", "2", 1))
    with pytest.raises(Unreadable, match="other than 0s and 1s"):
        formats.amat(12)(tmp_path / "a")


def test_archives(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, grey=BITS, bits=np.packbits(BITS, axis=1))
    assert np.array_equal(formats.npz("grey")(path), BITS)
    assert np.array_equal(formats.packed_bits("bits", 12)(path), BITS)
    for dtype in (np.uint8, np.float32, np.float64, np.bool_, np.int64):
        np.savez(tmp_path / "b.npz", a=BITS.astype(dtype))
        found = formats.npz_bits("a")(tmp_path / "b.npz")
        assert found.dtype == np.uint8
        assert np.array_equal(found, BITS)
    for wrong in (BITS * 0.5, np.where(BITS, np.nan, 0.0), BITS.astype(np.int8) * -1, BITS.astype(str)):
        np.savez(tmp_path / "b.npz", a=wrong)
        with pytest.raises(Unreadable, match="other than 0s and 1s in 'a'"):
            formats.npz_bits("a")(tmp_path / "b.npz")
    with pytest.raises(Unreadable, match="no array named 'colour'"):
        formats.npz("colour")(path)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(Unreadable, match="truncated"):
        formats.npz("grey")(path)


def test_mat(tmp_path):
    from scipy.io import savemat

    path = tmp_path / "a.mat"
    savemat(path, {"ff": BITS}, do_compression=True)
    assert np.array_equal(formats.mat("ff")(path), BITS)
    with pytest.raises(Unreadable, match="no array named 'gg'"):
        formats.mat("gg")(path)
    whole = path.read_bytes()
    for size in (0, 60, len(whole) - 10):
        path.write_bytes(whole[:size])
        with pytest.raises(Unreadable):
            formats.mat("ff")(path)


def test_records_of_an_archive(tmp_path):
    path = tmp_path / "a.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, content in (("b", bytes(range(6))), ("c", bytes(range(6, 9))), ("odd", b"12"), ("none", b"")):
            member = tarfile.TarInfo(f"folder/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        folder = tarfile.TarInfo("folder/d")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
    read = formats.tar_records(("folder/b", "folder/c"), 3)
    assert np.array_equal(read(path), np.arange(9).reshape(3, 3))
    for name, words in (("odd", "multiple of 3"), ("none", "multiple of 3"), ("e", "folder/e"), ("d", "not a file")):
        with pytest.raises(Unreadable, match=words):
            formats.tar_records((f"folder/{name}",), 3)(path)
    whole = path.read_bytes()
    for size in (0, 20, len(whole) // 2):
        path.write_bytes(whole[:size])
        with pytest.raises(Unreadable):
            read(path)


@pytest.mark.parametrize(
    "reader", [formats.idx, formats.amat(4), formats.npz("a"), formats.mat("a"), formats.tar_records(("a",), 1)]
)
@pytest.mark.parametrize("wrap", [lambda x: x, gzip.compress], ids=["bare", "gzipped"])
def test_a_pickle_is_never_loaded(reader, wrap, tmp_path):
    (tmp_path / "a").write_bytes(wrap(pickle.dumps(Payload(tmp_path / "executed"))))
    with pytest.raises(Unreadable):
        reader(tmp_path / "a")
    assert not (tmp_path / "executed").exists()


def test_a_pickle_within_an_archive_is_never_loaded(tmp_path):
    objects = np.array([Payload(tmp_path / "executed")], dtype=object)
    np.savez(tmp_path / "a.npz", images=objects)
    np.save(tmp_path / "a.npy", objects)
    with pytest.raises(Unreadable, match="is a pickle, or holds one"):
        formats.npz("images")(tmp_path / "a.npz")
    with pytest.raises(Unreadable, match="is a pickle, or holds one"):
        formats.npz("images")(tmp_path / "a.npy")
    assert not (tmp_path / "executed").exists()
    np.load(tmp_path / "a.npz", allow_pickle=True)["images"]
    assert (tmp_path / "executed").exists(), "the payload would have worked"
