"""What is done to images: shifts and smaller images, one pixel at a time, and which codes come back."""

import pytest
import torch

from common import plotting
from common.evaluation.mishandled import CODECS, resized, shifted


def test_shifts_go_one_way_each_and_lose_what_leaves():
    codes = torch.randint(1, 256, (200, 2, 5, 7), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    moved = shifted(codes, 2, torch.Generator().manual_seed(1))
    seen = set()
    for x, y in zip(codes, moved, strict=True):
        for name, dy, dx in (("down", 2, 0), ("up", -2, 0), ("right", 0, 2), ("left", 0, -2)):
            expected = torch.zeros_like(x)
            for i in range(5):
                for j in range(7):
                    if 0 <= i - dy < 5 and 0 <= j - dx < 7:
                        expected[:, i, j] = x[:, i - dy, j - dx]
            if torch.equal(expected, y):
                seen.add(name)
                break
        else:
            pytest.fail("an image is none of the four")
    assert seen == {"down", "up", "right", "left"}
    assert torch.equal(shifted(codes, 0, torch.Generator()), codes)


def test_antialiasing_averages_what_a_small_pixel_covers():
    board = torch.zeros(1, 1, 16, 16, dtype=torch.uint8)
    board[..., ::4] = 200  # one column in four
    fine = resized(board, 4, antialias=True).float()
    coarse = resized(board, 4, antialias=False).float()
    assert (fine[0, 0, 1:3, 1:3] - 50).abs().max() <= 1  # the mean
    assert (coarse[0, 0] == 0).all()  # every sampled pair of columns is black
    grey = torch.full((1, 3, 8, 8), 77, dtype=torch.uint8)
    for antialias in (True, False):
        assert torch.equal(resized(grey, 3, antialias=antialias), torch.full((1, 3, 3, 3), 77, dtype=torch.uint8))


def test_resizing_rounds_to_the_nearest_code():
    codes = torch.tensor([[[[10, 11], [10, 12]]]], dtype=torch.uint8)
    assert int(resized(codes, 1, antialias=True)) == 11  # 10.75


@pytest.mark.parametrize(("name", "broken"), [("round", 0), ("floor", 0), ("signed", 63)])
def test_which_codes_come_back(name, broken):
    encode, decode = CODECS[name]
    codes = torch.arange(256)
    back = decode(encode(codes.float()))
    assert back.dtype == torch.uint8
    assert int((back != codes).sum()) == broken
    assert bool((codes - back.long() >= 0).all())
    assert bool((codes - back.long() <= 1).all())


@pytest.mark.parametrize(("name", "bias"), [("round", 0.0), ("floor", -0.5), ("signed", -0.5)])
def test_rounding_down_takes_half_a_level(name, bias):
    encode, decode = CODECS[name]
    level = 255 * torch.rand(400_000, generator=torch.Generator().manual_seed(0))
    off = decode(encode(level)).double() - level
    assert abs(float(off.mean()) - bias) < 5 * (1 / 12 / 400_000) ** 0.5


def test_vectors_become_images_as_square_as_they_come():
    x = torch.arange(24.0).view(2, 12)
    assert torch.equal(plotting.squares(x), x.view(2, 3, 4))
    assert plotting.squares(torch.zeros(2, 11)).shape == (2, 3, 3)  # two are left out
    assert plotting.squares(torch.zeros(2, 5, 6)).shape == (2, 5, 6)
