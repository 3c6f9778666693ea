"""How near restored images are to what they should be: PSNR, SSIM and LPIPS, image by image.

Restored images and references are pairs, in the same order, as uint8 codes (N, C, H, W): what a file would hold. Every
value is a mean over images of what each image has, with the standard error of that mean. What decides such numbers,
and is left unsaid often enough, is in the protocol: the colours, the border that was cut off, the peak value.

    PSNR = 10 log10(peak^2 / mean squared error)                                            dB

is averaged in dB, image by image. The PSNR of the pooled error is another and lower number (Jensen), and that of an
image that equals its reference is infinite: such a set has no mean, and is refused.

    SSIM = mean over places of (2 m_x m_y + C1)(2 s_xy + C2) / ((m_x^2 + m_y^2 + C1)(s_x^2 + s_y^2 + C2))

of local means, variances and covariances in a Gaussian window (Wang et al. 2004, eqs. 13 to 16).

Colours are "rgb", all three channels alike, or "y", the luma of BT.601 as super-resolution papers compare it: from 16
to 235, not rounded, with a peak of 255 all the same. Grey images are grey, and neither.
"""

import warnings
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from common.errors import ConfigError, DataError
from common.evaluation.likelihood import mean_score
from common.records import Score

Colour = Literal["rgb", "y"]

WINDOW, SIGMA = 11, 1.5
"""Side and standard deviation of SSIM's window, pixels (Wang et al. 2004, section III-C)."""

K1, K2 = 0.01, 0.03
"""C1 = (K1 peak)^2 and C2 = (K2 peak)^2 (section III-B and III-C)."""

LPIPS_SIDE = 32
"""Pixels that LPIPS' networks need in each direction."""


def luma(rgb: Tensor) -> Tensor:
    """Y of ITU-R BT.601, 16 for black to 235 for white; codes 0 to 255 (..., 3, H, W) -> (..., 1, H, W) float64."""
    r, g, b = rgb.double().unbind(-3)
    return (16 + (65.481 * r + 128.553 * g + 24.966 * b) / 255).unsqueeze(-3)


def psnr(restored: Tensor, reference: Tensor, *, peak: float) -> Tensor:
    """Peak signal-to-noise ratio of each image, (N, C, H, W) twice -> (N,) dB, float64; +inf for equal images.

    Args:
        peak: the largest value that a pixel can have, 255 for bytes. The smallest is 0.
    """
    mse = (restored.double() - reference.double()).square().flatten(1).mean(1)
    return 10 * torch.log10(peak**2 / mse)


def ssim(restored: Tensor, reference: Tensor, *, peak: float) -> Tensor:
    """Structural similarity of each image, (N, C, H, W) twice -> (N,) from -1 to 1, float64; 1 for equal images.

    The window is Gaussian, and only places where it lies within the image count. Variances are weighted means of
    squared deviations, not the unbiased ones. Channels are compared one by one and averaged. The image is not made
    smaller first, as the authors' later program does with large ones.

    Raises:
        DataError: images smaller than the window.
    """
    if min(reference.shape[2:]) < WINDOW:
        raise DataError(f"SSIM's window has {WINDOW} pixels a side; images of {_size(reference)} are smaller.")
    x, y = restored.double().flatten(0, 1)[:, None], reference.double().flatten(0, 1)[:, None]  # (N C, 1, H, W)
    at = torch.arange(WINDOW, dtype=torch.float64, device=x.device) - WINDOW // 2
    line = torch.softmax(-at.square() / (2 * SIGMA**2), 0)

    def local(image: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(image, line.view(1, 1, 1, -1)), line.view(1, 1, -1, 1))

    m_x, m_y = local(x), local(y)
    v_x, v_y, c_xy = local(x * x) - m_x**2, local(y * y) - m_y**2, local(x * y) - m_x * m_y
    c1, c2 = (K1 * peak) ** 2, (K2 * peak) ** 2
    alike = (2 * m_x * m_y + c1) * (2 * c_xy + c2) / ((m_x**2 + m_y**2 + c1) * (v_x + v_y + c2))
    return alike.flatten(1).mean(1).view(reference.shape[:2]).mean(1)


def psnr_score(
    restored: Tensor,
    reference: Tensor,
    *,
    split: str,
    colour: Colour = "rgb",
    crop: int = 0,
    levels: int = 256,
    protocol: str = "",
    weights: str = "raw",
    batch_size: int = 100,
    progress: str = "",
) -> Score:
    """The mean PSNR of the images, dB, as a `Score` named `psnr`; higher is better.

    Args:
        restored: uint8 (N, C, H, W) what the model made of degraded images.
        reference: uint8 (N, C, H, W) the images as they should be, in the same order.
        split: which split the references are: "train", "val" or "test".
        colour: "rgb" or "y"; of grey images (C = 1) neither applies.
        crop: pixels cut off at each of the four borders, in super-resolution by a factor s often s.
        levels: how many codes there are; the peak is one less.
        protocol: what else decides the value and is the same in all runs that are to be compared: the degradation.
        batch_size: images at once; decides memory only.
        progress: label of a progress bar; none when empty.

    Raises:
        DataError: other types, shapes that differ, no images, colours that are not there, more cut off than there
            is, or an image that equals its reference.
        ConfigError: a setting that cannot be.
    """

    def measure(x: Tensor, y: Tensor, peak: float) -> Tensor:
        return psnr(x, y, peak=peak)

    values, how = _by_image(measure, restored, reference, colour, crop, levels, batch_size, progress)
    if equal := int(values.isinf().sum()):
        first = int(values.isinf().nonzero()[0])
        raise DataError(
            f"{equal} of {len(values)} restored images equal their references (the first is image {first}): their "
            "PSNR is infinite and has no mean. Are these the restored images?"
        )
    how = f"{how}, mean of the images' dB"
    how = f"{how}; {protocol}" if protocol else how
    return mean_score(values, "psnr", unit="dB", kind="estimate", split=split, protocol=how, weights=weights)


def ssim_score(
    restored: Tensor,
    reference: Tensor,
    *,
    split: str,
    colour: Colour = "rgb",
    crop: int = 0,
    levels: int = 256,
    protocol: str = "",
    weights: str = "raw",
    batch_size: int = 100,
    progress: str = "",
) -> Score:
    """The mean SSIM of the images, as a `Score` named `ssim`; higher is better, and 1 is the most.

    Arguments and errors are those of `psnr_score`; equal images are welcome, images smaller than the window are not.
    """

    def measure(x: Tensor, y: Tensor, peak: float) -> Tensor:
        return ssim(x, y, peak=peak)

    values, how = _by_image(measure, restored, reference, colour, crop, levels, batch_size, progress)
    how = f"{how}, Gaussian window {WINDOW}x{WINDOW} of deviation {SIGMA}, K1={K1}, K2={K2}"
    how = f"{how}; {protocol}" if protocol else how
    return mean_score(values, "ssim", unit="index", kind="estimate", split=split, protocol=how, weights=weights)


def lpips_score(
    restored: Tensor,
    reference: Tensor,
    *,
    split: str,
    network: Literal["alex", "vgg", "squeeze"] = "alex",
    crop: int = 0,
    protocol: str = "",
    weights: str = "raw",
    batch_size: int = 50,
    progress: str = "",
) -> Score:
    """The mean LPIPS distance (Zhang et al. 2018) of the images, as a `Score` named `lpips`; lower is better.

    By the package lpips, which is not among the requirements and whose networks torchvision fetches when first used.
    For RGB bytes of 32 pixels a side and more, at the size that they have. Arguments and errors are those of
    `psnr_score`, and

    Args:
        network: what the features are of, "alex" (by which the authors would compare images), "vgg" or "squeeze".

    Raises:
        ConfigError: the package is missing, it could not get its network, or there is no such network.
    """
    networks = ("alex", "vgg", "squeeze")
    if network not in networks:
        raise ConfigError(f"network = '{network}': LPIPS knows {', '.join(networks)}.")
    _check(restored, reference, "rgb", crop, 256)
    if reference.shape[1] != 3:
        raise DataError("LPIPS is for RGB images; these are grey.")
    height, width = (side - 2 * crop for side in reference.shape[2:])
    if min(height, width) < LPIPS_SIDE:
        raise DataError(f"LPIPS' networks need {LPIPS_SIDE} pixels a side; of these images {height}x{width} are left.")
    distance, version = _lpips(network)

    def measure(x: Tensor, y: Tensor, peak: float) -> Tensor:
        with torch.no_grad():
            return distance(x.float() / (0.5 * peak) - 1, y.float() / (0.5 * peak) - 1).double().flatten()

    values, how = _by_image(measure, restored, reference, "rgb", crop, 256, batch_size, progress)
    how = f"{how}, {network} network of lpips {version}"
    how = f"{how}; {protocol}" if protocol else how
    return mean_score(values, "lpips", unit="distance", kind="estimate", split=split, protocol=how, weights=weights)


def _lpips(network: str) -> tuple[Callable[[Tensor, Tensor], Tensor], str]:
    """The distance of images (B, 3, H, W) in [-1, 1], (B, 1, 1, 1); and what version of what it is."""
    try:
        import lpips
    except (ImportError, RuntimeError) as error:  # the second: a torchvision that was built for another torch
        raise ConfigError(
            f"LPIPS needs the package lpips, which cannot be imported here ({error}). In the repository's folder: "
            "pip install -e '.[lpips]'"
        ) from None
    try:
        with warnings.catch_warnings():  # lpips calls torchvision in its old way
            warnings.simplefilter("ignore")
            distance = lpips.LPIPS(net=network, version="0.1", verbose=False).eval()
    except OSError as error:  # no network; URLError is one
        raise ConfigError(f"lpips could not fetch the {network} network ({error}).") from None
    from importlib.metadata import PackageNotFoundError, version

    try:
        package = version("lpips")
    except PackageNotFoundError:
        package = "of unknown version"
    return distance, f"{package}, its weights 0.1"


def _by_image(
    measure: Callable[[Tensor, Tensor, float], Tensor],
    restored: Tensor,
    reference: Tensor,
    colour: Colour,
    crop: int,
    levels: int,
    batch_size: int,
    progress: str,
) -> tuple[Tensor, str]:
    """What each pair has, (N,) float64 on the CPU, and the protocol."""
    _check(restored, reference, colour, crop, levels)
    if batch_size < 1:
        raise ConfigError(f"batch_size = {batch_size}: at least one image at once (>= 1).")
    values = []
    with tqdm(total=len(reference), desc=progress, unit="image", disable=not progress, mininterval=0.5) as bar:
        for pair in zip(torch.split(restored, batch_size), torch.split(reference, batch_size), strict=True):
            x, y = (luma(codes) if colour == "y" else codes.double() for codes in pair)
            if crop:
                x, y = (image[..., crop:-crop, crop:-crop] for image in (x, y))
            values.append(measure(x, y, float(levels - 1)).cpu())
            bar.update(len(x))
    colours = "grey" if reference.shape[1] == 1 else {"rgb": "RGB", "y": "Y of BT.601 (16 to 235)"}[colour]
    border = f"{crop} pixels cut off each border" if crop else "no border cut off"
    return torch.cat(values), f"{len(reference):,} images of {_size(reference)}, {colours}, {border}, peak {levels - 1}"


def _check(restored: Tensor, reference: Tensor, colour: str, crop: int, levels: int) -> None:
    """The pairs are pairs, and of the colours that were asked for."""
    if colour not in ("rgb", "y"):
        raise ConfigError(f"colour = '{colour}': images are compared as 'rgb' or 'y'.")
    if crop < 0:
        raise ConfigError(f"crop = {crop}: pixels to cut off are counted from 0.")
    if not 2 <= levels <= 256:
        raise ConfigError(f"levels = {levels}: uint8 codes have 2 to 256 levels.")
    if colour == "y" and levels != 256:
        raise ConfigError(f"levels = {levels}: the Y of BT.601 is that of bytes, which have 256.")
    for what, images in (("restored images", restored), ("references", reference)):
        if images.dtype != torch.uint8:
            raise DataError(
                f"{what} are taken as uint8 codes, not {str(images.dtype).removeprefix('torch.')}: round what a model "
                "made to the codes that a file would hold."
            )
        if images.ndim != 4 or images.shape[1] not in (1, 3):
            raise DataError(f"{what} are (N, C, H, W) with C = 1 or 3; these have the shape {tuple(images.shape)}.")
        if len(images) and int(images.max()) >= levels:
            raise DataError(f"{what} have a code of {int(images.max())}, where there are {levels} levels.")
    if len(restored) != len(reference):
        raise DataError(f"{len(restored)} restored images and {len(reference)} references: they are pairs.")
    if restored.shape != reference.shape:
        raise DataError(
            f"restored images {tuple(restored.shape[1:])} and references {tuple(reference.shape[1:])}: a pair has one "
            "size and the same channels."
        )
    if len(reference) == 0:
        raise DataError("there are no images to compare.")
    if reference.shape[1] == 1 and colour == "y":
        raise DataError("grey images have no Y to be taken of; leave out colour.")
    if 2 * crop >= min(reference.shape[2:]):
        raise DataError(f"crop = {crop} leaves nothing of images of {_size(reference)}.")


def _size(images: Tensor) -> str:
    return f"{images.shape[2]}x{images.shape[3]}"
