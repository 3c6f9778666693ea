"""Pictures of the plane: what is where."""

import matplotlib.image
import torch

from common.data import toy
from common.plotting_plane import density_picture, grid


def test_the_grid_goes_row_by_row_from_the_top_left():
    points = grid(toy.density("banana"), 3)
    low, high = toy.density("banana").extent
    assert points[0].tolist() == [low, high]
    assert points[2].tolist() == [high, high]
    assert points[-1].tolist() == [high, low]


def test_density_and_samples_are_drawn_in_the_same_places(tmp_path):
    """A density in the upper right corner alone darkens the upper right of its panel, and so do samples there."""
    corner = toy.mixture("corner", torch.tensor([[2.0, 2.0]]), 0.2)
    path = tmp_path / "p.png"
    density_picture(path, corner, corner.log_prob, corner.sample(5000, torch.Generator().manual_seed(0)))
    picture = matplotlib.image.imread(path)[..., :3].sum(2)
    height, width = picture.shape
    for panel in range(3):
        square = picture[int(0.15 * height) :, panel * width // 3 : (panel + 1) * width // 3]
        dark = (square < 2.2) & (square > 0.4)  # blue, neither white nor the frame's black
        rows, columns = dark.nonzero()
        assert rows.mean() < 0.35 * square.shape[0]
        assert columns.mean() > 0.6 * square.shape[1]
