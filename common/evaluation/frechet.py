"""The Fréchet distance between two sets of images, as a named network sees them: `fd[network]`.

Both sets become features, each set of features a Gaussian with its mean mu and covariance C, and the two Gaussians are
compared (Heusel et al. 2017, eq. 6; Dowson & Landau 1982):

    |mu_a - mu_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2))

Lower is better, and 0 is reached by equal Gaussians only. The number means nothing without the network, the number of
samples and the reference: from fewer samples it comes out larger, whatever made them. It is therefore called by its
network, `fd[lenet-mnist@1a2b3c4d]`, and its protocol has the rest. "FID" is the distance by one network, Inception
(`features.inception`), and by no other.
"""

import hashlib

import torch
from torch import Tensor

from common.errors import ConfigError, DataError
from common.evaluation.features import Features
from common.records import Score

UNIT = "squared units"  # of the features, which have no name


class Moments:
    """Mean and covariance of features that come in batches, in float64.

    How they are cut into batches, and in which order they come, changes nothing but the last digits. Sums of squares
    are taken about the mean (Chan, Golub & LeVeque 1983), so that a mean far from zero costs no digits either.

    Args:
        network: name of what made the features; moments of different networks do not compare.
    """

    def __init__(self, network: str = "") -> None:
        self.network = network
        self.n = 0
        self._mean = torch.zeros(0, dtype=torch.float64)
        self._scatter = torch.zeros(0, 0, dtype=torch.float64)  # sum of (x - mean)(x - mean)^T

    def add(self, features: Tensor) -> "Moments":
        """Take in features (B, d); B may be anything, 0 too.

        Raises:
            DataError: not two-dimensional, of another d than those before, or with a value that is not finite.
        """
        if features.ndim != 2:
            raise DataError(f"features are (B, d); these have the shape {tuple(features.shape)}.")
        if self.n and features.shape[1] != len(self._mean):
            raise DataError(f"features of {features.shape[1]} dimensions after features of {len(self._mean)}.")
        if len(features) == 0:
            return self
        x = features.detach().to("cpu", torch.float64)
        if not x.isfinite().all():
            raise DataError("a feature is not a finite number: look at what made the samples.")
        mean = x.mean(0)
        centred = x - mean
        scatter = centred.T @ centred
        if self.n == 0:
            self.n, self._mean, self._scatter = len(x), mean, scatter
            return self
        n = self.n + len(x)
        step = mean - self._mean
        self._scatter = self._scatter + scatter + torch.outer(step, step) * (self.n * len(x) / n)
        self._mean = self._mean + step * (len(x) / n)
        self.n = n
        return self

    @property
    def dims(self) -> int:
        """Dimensions of a feature; 0 as long as there is none."""
        return len(self._mean)

    @property
    def mean(self) -> Tensor:
        """(d,) float64."""
        return self._mean.clone()

    @property
    def covariance(self) -> Tensor:
        """(d, d) float64, unbiased: the scatter over n - 1."""
        if self.n < 2:
            raise DataError(f"a covariance needs at least 2 examples; there are {self.n}.")
        return self._scatter / (self.n - 1)

    def __repr__(self) -> str:
        return f"Moments({self.network or 'unnamed features'}, n={self.n:,}, d={self.dims})"


def moments(features: Features, codes: Tensor, batch_size: int = 1000) -> Moments:
    """The moments of uint8 images (N, C, H, W) under a network."""
    found = Moments(features.name)
    for batch in torch.split(codes, batch_size):
        found.add(features(batch))
    return found


def frechet_distance(a: Moments, b: Moments) -> float:
    """The squared Fréchet distance of the Gaussians with these moments, in squared units of the features.

    With C = S S^T, the trace of (C_a C_b)^(1/2) is the sum of the square roots of the eigenvalues of
    (S_a^T S_b)(S_a^T S_b)^T, and so of the singular values of S_a^T S_b. These are taken, since roots of eigenvalues
    that should be zero (features that never fire) would add up to errors of 1e-8 and more.

    Raises:
        DataError: features of different networks or sizes, or no more examples than dimensions: the covariance would
            be singular for want of examples, and the distance a statement about their number.
    """
    if a.network != b.network:
        raise DataError(f"features of {a.network or 'unnamed'} do not compare with those of {b.network or 'unnamed'}.")
    if a.dims != b.dims:
        raise DataError(f"features of {a.dims} and of {b.dims} dimensions do not compare.")
    for side in (a, b):
        if side.n <= side.dims:
            raise DataError(
                f"{side.n} examples are too few for a Fréchet distance in {side.dims} dimensions: it takes more "
                f"examples than dimensions, and many times as many for a value that says something."
            )
    between = float((a.mean - b.mean).square().sum())
    c_a, c_b = a.covariance, b.covariance
    overlap = torch.linalg.svdvals(_root(c_a).T @ _root(c_b)).sum()
    return max(0.0, between + float(c_a.trace() + c_b.trace() - 2 * overlap))


def _root(covariance: Tensor) -> Tensor:
    """S with S S^T = C."""
    values, vectors = torch.linalg.eigh(covariance)
    rounding = values.max().clamp(min=0) * len(values) * torch.finfo(values.dtype).eps
    root: Tensor = vectors * torch.where(values > rounding, values, 0).sqrt()
    return root


_reference: dict[tuple[str, str], Moments] = {}  # (network, digest of the images) -> their moments


def frechet_score(
    features: Features,
    samples: Tensor,
    reference: Tensor,
    *,
    split: str,
    generator: torch.Generator,
    protocol: str = "",
    weights: str = "raw",
    resamples: int = 50,
    batch_size: int = 1000,
) -> Score:
    """The Fréchet distance of samples from a reference, as a `Score` named `fd[<network>]`.

    The standard error is the standard deviation over bootstrap resamples of the samples: how much the value would
    change with other samples of the same model. The reference stays as it is. The bias that comes from the number of
    samples is not in it, and is the reason to compare values of equal n only.

    Args:
        samples: uint8 (n, C, H, W) what the model made, in codes like the data's.
        reference: uint8 (m, C, H, W) the data: a whole split as it is, neither augmented nor shuffled by a training
            iterator.
        split: which split that is: "train", "val" or "test".
        generator: for the resamples alone.
        protocol: what else decides the value and is the same in all runs that are to be compared; the network, n, and
            the reference's split and size are stated already.
        weights: "raw" or "ema": which of the model's weights made the samples.
        resamples: how many, at least 2.

    Raises:
        DataError: images that the network does not take, or too few (`frechet_distance`).
        ConfigError: fewer than two resamples.
    """
    if resamples < 2:
        raise ConfigError(f"resamples = {resamples}: an error bar takes at least 2.")
    x = torch.cat([features(batch).detach().to("cpu", torch.float64) for batch in torch.split(samples, batch_size)])
    data = _moments_of_data(features, reference, batch_size)
    value = frechet_distance(Moments(features.name).add(x), data)
    drawn = []
    for _ in range(resamples):
        chosen = torch.randint(len(x), (len(x),), generator=generator, device=generator.device).cpu()
        drawn.append(frechet_distance(Moments(features.name).add(x[chosen]), data))
    how = f"{len(x):,} samples against {len(reference):,} images of {split}, features of {features.name}"
    return Score(
        name=f"fd[{features.name}]",
        value=value,
        stderr=float(torch.tensor(drawn, dtype=torch.float64).std()),
        n=len(x),
        unit=UNIT,
        kind="estimate",
        split=split,
        weights=weights,  # type: ignore[arg-type]
        protocol=f"{how}; {protocol}" if protocol else how,
    )


def _moments_of_data(features: Features, reference: Tensor, batch_size: int) -> Moments:
    """The reference's moments, worked out once in a process for each network and content."""
    if reference.dtype != torch.uint8:  # the network says what is wrong with it
        return moments(features, reference, batch_size)
    digest = hashlib.sha256(f"{tuple(reference.shape)}".encode())
    digest.update(reference.contiguous().cpu().numpy().data)
    key = (features.name, digest.hexdigest())
    if key not in _reference:
        _reference[key] = moments(features, reference, batch_size)
    return _reference[key]
