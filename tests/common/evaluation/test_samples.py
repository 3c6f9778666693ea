"""Reading samples: what a folder or file holds comes back to the bit; what is no set of samples gets one message."""

import os
import pickle
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from common.errors import DataError
from common.evaluation import samples, tensor_file
from common.evaluation.bank import Bank
from common.evaluation.samples import Digest, Images, Like, is_features, of_tensor, open_images, read_features

GREY = Like("toys", (1, 6, 5))
RGB = Like("toys", (3, 6, 5))


def codes(n: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (n, *shape), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


def everything(images: Images, size: int = 4) -> Tensor:
    return torch.cat(list(images.batches(size)))


def save(array: np.ndarray, path: Path, **how: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **how)


def folder(path: Path, x: Tensor, suffix: str = "png") -> Path:
    for i, each in enumerate(x):
        pixels = each[0] if len(each) == 1 else each.permute(1, 2, 0)
        save(pixels.numpy(), path / f"{i:03}.{suffix}")
    return path


# -- What comes back --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "ppm"])
def test_a_folder_comes_back_to_the_bit(tmp_path: Path, channels: int, suffix: str) -> None:
    x = codes(11, channels, 6, 5)
    images = open_images(folder(tmp_path / "mine", x, suffix), GREY if channels == 1 else RGB)
    assert (images.n, images.shape, images.name, images.notes) == (11, (channels, 6, 5), "mine", ())
    assert torch.equal(everything(images), x)
    rows = torch.tensor([7, 0, 7])
    assert torch.equal(torch.cat(list(images.batches(2, rows))), x[rows])


def test_folders_in_a_folder_are_read_in_the_order_of_their_paths(tmp_path: Path) -> None:
    x = codes(4, 1, 6, 5)
    for name, each in zip(("b/0.png", "a/1.png", "a.png", "a/.hidden.png"), x, strict=True):
        save(each[0].numpy(), tmp_path / name)
    (tmp_path / "notes.txt").write_text("how they were made")
    assert torch.equal(everything(open_images(tmp_path)), x[[2, 1, 0]])


def test_all_256_codes_survive_every_way_of_keeping_them(tmp_path: Path) -> None:
    x = torch.arange(256, dtype=torch.uint8).view(8, 1, 4, 8)
    unit = x.double() / 255
    np.save(tmp_path / "u.npy", x.numpy())
    np.save(tmp_path / "f.npy", unit.float().numpy())
    np.save(tmp_path / "big-endian.npy", unit.numpy().astype(">f8"))
    np.savez_compressed(tmp_path / "z.npz", unit.numpy())
    np.savez(tmp_path / "several.npz", samples=x.numpy(), labels=np.arange(8))
    save_file({"x": unit.float()}, tmp_path / "s.safetensors")
    torch.save(unit, tmp_path / "t.pt")
    torch.save({"samples": x, "seed": 3}, tmp_path / "d.pt")
    np.save(tmp_path / "last.npy", x.permute(0, 2, 3, 1).numpy())
    np.save(tmp_path / "grey.npy", x[:, 0].numpy())
    np.save(tmp_path / "flat.npy", unit.flatten(1).numpy())
    folder(tmp_path / "png", x)
    names = [p.name for p in tmp_path.iterdir()]
    assert len(names) == 12
    digests = set()
    for name in names:
        found = everything(open_images(tmp_path / name, Like("toys", (1, 4, 8))))
        assert torch.equal(found, x), name
        digest = Digest((1, 4, 8))
        for part in torch.split(found, 3):
            digest.add(part)
        digests.add(digest.hex())
    assert len(digests) == 1  # of what they hold, not of how


def test_floats_go_to_the_nearest_code_without_bias(tmp_path: Path) -> None:
    unit = torch.rand(50, 1, 20, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.save(unit, tmp_path / "x.pt")
    images = open_images(tmp_path / "x.pt")
    error = everything(images).double() - 255 * unit
    assert error.abs().max() <= 0.5
    assert abs(float(error.mean())) < 5 * 12**-0.5 / error.numel() ** 0.5  # floor would be at -0.5
    assert images.notes == ("floats in [0, 1], rounded to the nearest of 256 codes",)


def test_images_of_few_levels_become_codes_like_the_datas(tmp_path: Path) -> None:
    like = Like("toys", (1, 1, 17), levels=17)
    x = torch.arange(17, dtype=torch.uint8).view(1, 1, 1, 17)
    folder(tmp_path / "png", (x.double() * 255 / 16).round().to(torch.uint8))
    np.save(tmp_path / "codes.npy", x.numpy())
    np.save(tmp_path / "unit.npy", (x.float() / 16).numpy())
    for name in ("png", "codes.npy", "unit.npy"):
        assert torch.equal(everything(open_images(tmp_path / name, like)), x), name
    np.save(tmp_path / "bytes.npy", (15 * x).numpy())
    with pytest.raises(DataError, match=r"bytes\.npy: a code of 240, where toys has 17 levels: save .* 0 ... 16"):
        open_images(tmp_path / "bytes.npy", like)
    np.save(tmp_path / "black.npy", np.array([0, 255], np.uint8).reshape(1, 1, 1, 2))
    with pytest.raises(DataError, match=r"has 2 levels: .* 0 and 255 are divided by 255 first\."):
        open_images(tmp_path / "black.npy", Like("bits", (1, 1, 2), levels=2))


def test_channels_last_is_told_from_channels_first(tmp_path: Path) -> None:
    x = codes(5, 3, 6, 3)
    np.save(tmp_path / "first.npy", x.numpy())
    np.save(tmp_path / "last.npy", codes(5, 6, 3, 1).numpy())
    assert torch.equal(everything(open_images(tmp_path / "first.npy", Like("toys", (3, 6, 3)))), x)
    assert open_images(tmp_path / "last.npy").shape == (1, 6, 3)


def test_palettes_and_bitmaps(tmp_path: Path) -> None:
    x = codes(2, 3, 6, 5)
    for i, each in enumerate(x):
        picture = Image.fromarray(each.permute(1, 2, 0).numpy()).quantize(16)
        save(np.asarray(picture.convert("RGB")), tmp_path / "rgb" / f"{i}.png")
        (tmp_path / "palette").mkdir(exist_ok=True)
        picture.save(tmp_path / "palette" / f"{i}.png")
    assert torch.equal(everything(open_images(tmp_path / "palette", RGB)), everything(open_images(tmp_path / "rgb")))
    bits = codes(1, 1, 6, 5) > 99
    save(bits[0, 0].numpy(), tmp_path / "bits" / "0.png")
    assert torch.equal(everything(open_images(tmp_path / "bits", GREY)), bits.to(torch.uint8) * 255)


def test_what_a_reader_of_scores_should_know_is_noted(tmp_path: Path) -> None:
    assert "JPEG" in open_images(folder(tmp_path / "lossy", codes(2, 3, 6, 5), "jpg")).decides[0]
    np.save(tmp_path / "dark.npy", (codes(2, 1, 6, 5) > 9).to(torch.uint8).numpy())
    assert "cut off" in open_images(tmp_path / "dark.npy").notes[0]


def test_rows_of_pixels_are_images_where_the_data_say_which(tmp_path: Path) -> None:
    x = codes(4, 1, 6, 5)
    np.save(tmp_path / "rows.npy", x.flatten(1).numpy())
    assert torch.equal(everything(open_images(tmp_path / "rows.npy", GREY)), x)
    with pytest.raises(DataError, match=r"uint8 \(4, 30\); samples are \(N, C, H, W\)"):
        open_images(tmp_path / "rows.npy")


# -- Features ---------------------------------------------------------------------------------------------------------


def test_features_come_back_with_their_names(tmp_path: Path) -> None:
    x = torch.randn(7, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    kept = Bank("net@12345678", "samples", "test").add(x)
    samples.write_features(kept, tmp_path / "new" / "f.safetensors")
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["f.safetensors"]
    assert is_features(tmp_path / "new" / "f.safetensors")
    found = read_features(tmp_path / "new" / "f.safetensors")
    assert (found.network, found.split, found.source) == ("net@12345678", "test", "f.safetensors")
    assert torch.equal(found.x, kept.x)
    (tmp_path / "any").touch()
    assert (tmp_path / "new" / "f.safetensors").stat().st_mode == (tmp_path / "any").stat().st_mode
    save_file({"x": x}, tmp_path / "plain.safetensors")
    assert not is_features(tmp_path / "plain.safetensors")
    assert not is_features(tmp_path)
    with pytest.raises(DataError, match=r"metadata name no 'network'"):
        read_features(tmp_path / "plain.safetensors")


@pytest.mark.parametrize(
    ("tensor", "metadata", "said"),
    [
        (torch.zeros(3, 2).long(), {}, r"features are floats \(N, d\); these are int64 \(3, 2\)"),
        (torch.zeros(3, 2, 2), {}, r"these are float32 \(3, 2, 2\)"),
        (torch.zeros(0, 2), {}, "no features at all"),
        (torch.tensor([[1.0, float("nan")]]), {}, "not a finite number"),
        (torch.zeros(3, 2), {"split": "everything"}, "metadata name the split 'everything'"),
    ],
)
def test_features_that_are_none(tmp_path: Path, tensor: Tensor, metadata: dict[str, str], said: str) -> None:
    save_file({"features": tensor}, tmp_path / "f.safetensors", metadata={"network": "net"} | metadata)
    with pytest.raises(DataError, match=rf"f\.safetensors: .*{said}"):
        read_features(tmp_path / "f.safetensors")


def test_a_file_of_samples_may_say_its_split(tmp_path: Path) -> None:
    save_file({"samples": codes(2, 1, 6, 5)}, tmp_path / "s.safetensors", metadata={"split": "val"})
    assert open_images(tmp_path / "s.safetensors").split == "val"
    assert of_tensor(codes(2, 1, 6, 5), "draws", "test").split == "test"


# -- What is no set of samples ----------------------------------------------------------------------------------------


def test_a_folder_of_different_sizes_names_two(tmp_path: Path) -> None:
    folder(tmp_path, codes(5, 1, 6, 5))
    save(codes(1, 7, 5)[0].numpy(), tmp_path / "odd.png")
    said = r"5 are 6x5 grey \(as 000\.png\), 1 are 7x5 grey \(as odd\.png\)\."
    with pytest.raises(DataError, match=said):
        open_images(tmp_path)
    save(codes(1, 6, 5, 3)[0].numpy(), tmp_path / "colour.png")
    with pytest.raises(DataError, match=r"and 1 more are of 1 other kinds"):
        open_images(tmp_path)


def test_grey_and_colour_are_not_each_other(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the samples are grey, the images of toys are RGB: save them as RGB"):
        open_images(folder(tmp_path / "g", codes(2, 1, 6, 5)), RGB)
    with pytest.raises(DataError, match="the samples are RGB, the images of toys are grey: save them as grey, mode L"):
        open_images(folder(tmp_path / "c", codes(2, 3, 6, 5)), GREY)
    np.save(tmp_path / "g.npy", codes(2, 6, 5).numpy())
    with pytest.raises(DataError, match=r"g\.npy: the samples are grey"):
        open_images(tmp_path / "g.npy", RGB)


def test_other_sizes_than_the_datas_are_not_resized(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the samples are 5x6, the images of toys are 6x5\. Scores depend on how"):
        open_images(folder(tmp_path, codes(2, 1, 5, 6)), GREY)


def damaged_png(width: int, height: int) -> bytes:
    """A PNG that only says how large it is."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def test_a_corrupt_image_is_named(tmp_path: Path) -> None:
    folder(tmp_path, codes(5, 1, 6, 5))
    (tmp_path / "002.png").write_bytes(b"no image at all")
    with pytest.raises(DataError, match=r"002\.png: is not an image that can be read \(no known format\)"):
        open_images(tmp_path)
    (tmp_path / "002.png").write_bytes(damaged_png(5, 6))
    images = open_images(tmp_path)  # its header is sound
    with pytest.raises(DataError, match=r"002\.png: is damaged"):
        everything(images)


def test_a_bomb_is_not_decoded(tmp_path: Path) -> None:
    for width in (10_000, 100_000):  # PIL warns of the one and refuses the other
        (tmp_path / "bomb.png").write_bytes(damaged_png(width, 10_000))
        with pytest.raises(DataError, match=r"bomb\.png: says that it is larger than [\d,]+ pixels, and was not"):
            open_images(tmp_path)


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    inside = folder(tmp_path / "inside", codes(3, 1, 6, 5))
    (inside / "again.png").symlink_to(inside / "000.png")
    assert open_images(inside).n == 4
    outside = folder(tmp_path / "outside", codes(1, 1, 6, 5))
    for target in (outside / "000.png", outside):
        link = inside / "more.png"
        link.symlink_to(target)
        with pytest.raises(DataError, match=r"more\.png: a link that leads out of the folder"):
            open_images(inside)
        link.unlink()
    (inside / "nothing.png").symlink_to(inside / "gone.png")
    with pytest.raises(DataError, match="is gone, or is a link to nothing"):
        open_images(inside)


def test_transparent_deep_and_animated_images_are_refused(tmp_path: Path) -> None:
    save(codes(1, 6, 5, 4)[0].numpy(), tmp_path / "a" / "rgba.png")
    save(np.zeros((6, 5), np.uint16), tmp_path / "b" / "deep.png")
    (tmp_path / "c").mkdir()
    frames = [Image.fromarray(x.numpy()) for x in codes(2, 6, 5)]
    frames[0].save(tmp_path / "c" / "film.png", save_all=True, append_images=frames[1:])
    for name, said in {"a": r"rgba\.png: is partly transparent", "b": r"of mode I;16", "c": "holds 2 pictures"}.items():
        with pytest.raises(DataError, match=said):
            open_images(tmp_path / name)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"this folder holds no image \(\.png, "):
        open_images(tmp_path)
    (tmp_path / "x.npy").write_text("")
    with pytest.raises(DataError, match=r"holds no image .* It holds x\.npy\."):
        open_images(tmp_path)
    with pytest.raises(DataError, match="there is no such folder or file"):
        open_images(tmp_path / "gone")
    save(np.zeros((6, 5), np.uint8), tmp_path / "one.png")
    with pytest.raises(DataError, match="one image is no set of samples"):
        open_images(tmp_path / "one.png")
    (tmp_path / "x.mat").write_text("")
    with pytest.raises(DataError, match=r"a folder of images, or a file of \.npy"):
        open_images(tmp_path / "x.mat")


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((0, 1, 6, 5), np.uint8), "no samples at all"),
        (np.zeros((), np.float32), "no samples at all"),
        (np.full((4, 1, 6, 5), np.nan, np.float32), r"120 values in 4 of 4 samples are NaN or infinite, .* sample 0 "),
        (np.where(np.arange(4) == 2, np.inf, 0.5)[:, None, None] * np.ones((4, 6, 5)), "30 values in 1 of 4.*sample 2"),
        (np.linspace(-1, 1, 60).reshape(2, 1, 6, 5), r"floats from -1 to 1; .*\(x \+ 1\) / 2"),
        (np.linspace(0, 255, 60).reshape(2, 1, 6, 5), r"floats from 0 to 255; .*saved as uint8"),
        (np.linspace(-9, 9, 60).reshape(2, 1, 6, 5), r"floats from -9 to 9; .*Clip them"),
        (np.zeros((2, 1, 6, 5), np.int64), r"int64 \(2, 1, 6, 5\); samples are uint8 codes"),
        (np.zeros((2, 1, 6, 5), bool), "bool"),
        (np.zeros((2, 4, 6, 5), np.uint8), r"uint8 \(2, 4, 6, 5\); samples are \(N, C, H, W\)"),
        (np.zeros((2, 7), np.uint8), r"uint8 \(2, 7\); samples are"),
    ],
)
def test_arrays_that_are_no_samples(tmp_path: Path, array: np.ndarray, said: str) -> None:
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(DataError, match=rf"x\.npy: .*{said}"):
        open_images(tmp_path / "x.npy", GREY)


class Boom:
    """What would happen if it were unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch pickled",)


def test_pickles_are_never_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    objects = np.array([Boom()], dtype=object)
    np.save("a.npy", objects, allow_pickle=True)
    np.savez("b.npz", samples=objects)
    torch.save(Boom(), "c.pt")
    Path("d.npy").write_bytes(pickle.dumps(Boom()))
    Path("e.pt").write_bytes(pickle.dumps(Boom()))
    for name in ("a.npy", "b.npz", "c.pt", "d.npy", "e.pt"):
        with pytest.raises(DataError, match=rf"{name}: is a pickle, or holds one, and is never loaded"):
            open_images(Path(name))
    assert not Path("pickled").exists()


def test_tensors_of_old_files_are_read_without_a_word(tmp_path: Path) -> None:
    x = codes(4, 1, 6, 5)
    torch.save(x, tmp_path / "x.pt", _use_new_zipfile_serialization=False)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert torch.equal(everything(open_images(tmp_path / "x.pt")), x)
        (tmp_path / "y.pt").write_bytes(pickle.dumps(Boom(), protocol=4))
        with pytest.raises(DataError, match=r"y\.pt: is a pickle"):
            open_images(tmp_path / "y.pt")
    assert said == []


@pytest.mark.parametrize("suffix", [".npy", ".pt"])
def test_what_is_no_tensor_file_is_not_called_a_pickle(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"x{suffix}").write_bytes(b"what somebody wrote down")
    with pytest.raises(DataError, match=rf"x\{suffix}: is not a {suffix} file.*, or is damaged"):
        open_images(tmp_path / f"x{suffix}")


@pytest.mark.parametrize("suffix", tensor_file.TENSOR_FILES)
def test_damaged_files_are_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    x = codes(20, 1, 6, 5)
    writers = {".npy": lambda: np.save(path, x.numpy()), ".npz": lambda: np.savez(path, x.numpy())}
    writers |= {".safetensors": lambda: save_file({"x": x}, path), ".pt": lambda: torch.save(x, path)}
    writers[suffix]()
    assert open_images(path).n == 20
    whole = path.read_bytes()
    for part in (whole[: len(whole) // 2], b"", b"\x00" * 100):
        path.write_bytes(part)
        with pytest.raises(DataError, match=rf"x\{suffix}: is "):
            open_images(path)


def test_archives_that_unpack_to_too_much_and_files_of_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez_compressed(tmp_path / "x.npz", np.zeros((100, 1, 60, 60), np.uint8))
    assert open_images(tmp_path / "x.npz").n == 100
    np.savez(tmp_path / "two.npz", a=np.zeros(3), b=np.zeros(3))
    with pytest.raises(DataError, match=r"two\.npz: holds 2 tensors \(a, b\); one is wanted, or one named 'samples'"):
        open_images(tmp_path / "two.npz")
    monkeypatch.setattr(tensor_file, "MAX_BYTES", 100_000)
    assert (tmp_path / "x.npz").stat().st_size < 10_000
    with pytest.raises(DataError, match=r"x\.npz: unpacks to more than"):
        open_images(tmp_path / "x.npz")
    with zipfile.ZipFile(tmp_path / "none.npz", "w"):
        pass
    with pytest.raises(DataError, match=r"none\.npz: holds no tensor"):
        open_images(tmp_path / "none.npz")
