"""The denoiser interface: samplers are functions of a callable that says what is below the noise, and of nothing else.

    Denoiser:  (x, sigma) -> x0        x = x0 + sigma * noise, noise ~ N(0, I)

Variance-exploding coordinates (Karras, Aittala, Aila & Laine 2022): the signal keeps its size, noise is put on top of
it. The diffusion process of Ho, Jain & Abbeel 2020 shrinks the signal as it adds noise (variance-preserving); the two
are one process in other coordinates:

    x_t = sqrt(abar_t) x0 + sqrt(1 - abar_t) noise  =  sqrt(abar_t) (x0 + sigma_t noise)
    sigma_t = sqrt((1 - abar_t) / abar_t)

so that a sampler for x is one for x_t, and back: x = x_t / sqrt(abar_t).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from common.errors import ConfigError

Denoiser = Callable[[Tensor, float], Tensor]
"""(x (B, ...), sigma) -> the expected x0 given x, (B, ...). sigma is one number for the whole batch."""

_TOLERANCE = 1e-5  # relative; neighbours of a schedule of a thousand steps differ by 1e-3 or more


class EpsilonDenoiser:
    """A network that predicts the noise, eps(x_t, t), as a `Denoiser` at the noise levels of its schedule.

        x0 = x - sigma_t * eps(sqrt(abar_t) x, t)

    Args:
        epsilon: (x_t (B, ...), t (B,) int64 in 1 ... T) -> the predicted noise (B, ...).
        alpha_bar: (T,) float64; alpha_bar[t - 1] is abar_t of the paper, t = 1 ... T. Strictly decreasing in (0, 1).

    Attributes:
        sigmas: (T,) float64; sigmas[t - 1] is sigma_t: the noise levels that it can be asked at, increasing.

    Raises `ConfigError` for a schedule that is not one, and, when called, for a sigma that the schedule does not have.
    """

    def __init__(self, epsilon: Callable[[Tensor, Tensor], Tensor], alpha_bar: Tensor) -> None:
        alpha_bar = torch.as_tensor(alpha_bar).detach().cpu()
        if alpha_bar.dim() != 1 or len(alpha_bar) == 0 or alpha_bar.dtype != torch.float64:
            raise ConfigError(
                f"alpha_bar has shape {tuple(alpha_bar.shape)} and type {alpha_bar.dtype}: it must be (T,) of float64, "
                "since products of a thousand factors lose digits in float32."
            )
        steps = alpha_bar.diff(prepend=alpha_bar.new_ones(1))
        if not (bool((steps < 0).all()) and float(alpha_bar[-1]) > 0):
            raise ConfigError("alpha_bar must decrease strictly from below 1 and stay above 0: it is not a schedule.")
        self.epsilon = epsilon
        self.alpha_bar = alpha_bar
        self.sigmas = ((1 - alpha_bar) / alpha_bar).sqrt()

    def step_of(self, sigma: float | Tensor) -> int:
        """The t in 1 ... T whose noise level is `sigma`. Raises `ConfigError` when there is none."""
        wanted = float(sigma)
        i = int((self.sigmas - wanted).abs().argmin())
        nearest = float(self.sigmas[i])
        if not abs(nearest - wanted) <= _TOLERANCE * nearest:
            raise ConfigError(
                f"sigma = {wanted:.6g} is not a noise level of this network's schedule; the nearest of its "
                f"{len(self.sigmas)} is {nearest:.6g} (t = {i + 1}). Take sigmas from the denoiser's `sigmas`."
            )
        return i + 1

    def __call__(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        t = self.step_of(sigma)
        shrink, noise_level = float(self.alpha_bar[t - 1].sqrt()), float(self.sigmas[t - 1])
        times = torch.full((len(x),), t, device=x.device)
        return x - noise_level * self.epsilon(shrink * x, times)


def epsilon_network(denoiser: Denoiser, alpha_bar: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """The other way round: eps(x_t, t) of a denoiser, for what expects a network. All t of a batch must be the same.

    Args:
        alpha_bar: (T,) float64, as for `EpsilonDenoiser`.
    """
    levels = EpsilonDenoiser(lambda x, t: x, alpha_bar)

    def epsilon(x_t: Tensor, t: Tensor) -> Tensor:
        step = int(t[0])
        if not bool((t == step).all()):
            raise ConfigError("a denoiser is asked about one noise level at a time: all t of a batch must be the same.")
        sigma = float(levels.sigmas[step - 1])
        x = x_t / float(levels.alpha_bar[step - 1].sqrt())
        return (x - denoiser(x, sigma)) / sigma

    return epsilon
