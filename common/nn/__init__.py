"""Networks that papers are built from, and none of them here claims as its idea.

The U-Net and the denoiser interface serve DDPM and DDIM. `resnet`, `dense`, `chain` and `gaussian` have one user so
far, Real NVP, and are here before their third use so that its file holds what is its own: couplings, masks, scales.
"""

from common.nn.denoiser import Denoiser, EpsilonDenoiser, epsilon_network
from common.nn.unet import UNet

__all__ = ["Denoiser", "EpsilonDenoiser", "UNet", "epsilon_network"]
