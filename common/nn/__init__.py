"""Networks that more than one paper is built from, and no paper claims as its idea."""

from common.nn.denoiser import Denoiser, EpsilonDenoiser, epsilon_network
from common.nn.unet import UNet

__all__ = ["Denoiser", "EpsilonDenoiser", "UNet", "epsilon_network"]
