"""How clearly and how evenly samples fall into classes, in the eyes of a named classifier: `class_score[classifier]`.

    exp E KL( p(y|x) || p(y) )  =  exp( H(p(y)) - E H(p(y|x)) ),      p(y) = E p(y|x)

(Salimans et al. 2016, section 4.) It is 1 where the classifier says the same of every sample, and K where each of K
classes has its share of samples and every one of them is clear. By Inception, and by no other network, it is the
Inception score. It looks at no data: it sees neither that the samples are blurred, as long as their class is clear,
nor that all of a class are equal, and real data do not always have the highest.

From n samples it comes out too small, by a factor of about 1 - (K' - 1) / (2 n) where samples are clear and fall into
K' classes, since the classes' observed shares are less even than their true ones. Equal n compare.

>>> log_probs = torch.tensor([[0.5, 0.5], [0.5, 0.5]]).log().double()
>>> from_log_probs(log_probs)
1.0
"""

import torch
from safetensors.torch import load as parse
from torch import Tensor
from torch.special import entr
from tqdm import tqdm

from common.errors import ConfigError, DataError, nearest
from common.evaluation.bank import Bank
from common.evaluation.efficientnet import _network, efficientnet_lite0
from common.evaluation.features import Features, _Extractor, _verified, lenet
from common.evaluation.lenet import SHA256, WEIGHTS, LeNet
from common.records import Score

SUFFIX = "/classes"
"""What the name of a network's log-probabilities has after the network's own."""

CLASSIFIERS = ("lenet-mnist", "lenet-fashion_mnist", "efficientnet-lite0")


def classifier(name: str) -> Features:
    """log p(y|x) (B, K) as features: a LeNet has the 10 classes it was trained for, EfficientNet ImageNet's 1,000.

    The name is the network's with "/classes" after it, so that log-probabilities never pass for its features.

    Raises:
        ConfigError: there is no such classifier.
        DataError: its weights are missing or not the published ones.
    """
    if name not in CLASSIFIERS:
        raise ConfigError(
            f"there is no classifier '{name}'.{nearest(name, CLASSIFIERS)} There are: {', '.join(CLASSIFIERS)}."
        )
    shape: tuple[int | None, ...] = (None, None, None)
    if name == "efficientnet-lite0":
        features, head = efficientnet_lite0(), _network()._fc
    else:
        dataset, shape = name.removeprefix("lenet-"), (1, 28, 28)
        features, network = lenet(dataset), LeNet()
        network.load_state_dict(parse(_verified(WEIGHTS / f"{name}.safetensors", SHA256[dataset])))
        head = network.head

    def compute(codes: Tensor) -> Tensor:
        return head(features(codes).float()).double().log_softmax(1)  # type: ignore[no-any-return]

    return _Extractor(features.name + SUFFIX, head.out_features, shape, compute)


def from_log_probs(log_probs: Tensor) -> float:
    """The score of log p(y|x) (n, K), float64."""
    p = log_probs.exp()
    return float((entr(p.mean(0)).sum() - entr(p).sum(1).mean()).exp())


def class_score(
    samples: Bank,
    *,
    generator: torch.Generator,
    protocol: str = "",
    weights: str = "raw",
    resamples: int = 200,
    progress: str = "",
) -> Score:
    """`class_score[<network>]` of a bank of log-probabilities, made by a `classifier`.

    The error is the standard deviation over bootstrap resamples of the samples. The bias by their number is not in it.

    Args:
        generator: for the resamples alone.
        protocol: what else decides the value.
        weights: "raw" or "ema": which of the model's weights made the samples.
        resamples: how many, at least 2.
        progress: label of a progress bar; none when empty.

    Raises:
        DataError: features that are no classifier's, or fewer than two samples.
        ConfigError: fewer than two resamples.
    """
    if resamples < 2:
        raise ConfigError(f"resamples = {resamples}: an error bar takes at least 2.")
    if not samples.network.endswith(SUFFIX):
        raise DataError(
            f"class_score takes a classifier's log-probabilities, not features of {samples.network or 'no network'}: "
            f"make the bank by class_score.classifier, which knows {', '.join(CLASSIFIERS)}."
        )
    if samples.n < 2:
        raise DataError(
            f"class_score: {samples.n} of {samples.source}; it takes 2 samples at least, and says little then."
        )
    p = samples.x.exp()
    if not torch.allclose(p.sum(1), p.new_ones(()), atol=1e-6):
        raise DataError(f"class_score: {samples.source} has rows whose probabilities do not add up to 1.")
    entropy = entr(p).sum(1)  # H(p(y|x)) (n,)
    n, network = samples.n, samples.network.removesuffix(SUFFIX)
    drawn = torch.zeros(resamples, dtype=torch.float64)
    for i in tqdm(range(resamples), desc=progress, disable=not progress, unit="resample"):
        chosen = torch.randint(n, (n,), generator=generator, device=generator.device).cpu()
        share = torch.bincount(chosen, minlength=n).double() / n
        drawn[i] = (entr(share @ p).sum() - share @ entropy).exp()
    how = (
        f"{n:,} samples, {samples.dims:,} classes of {network}, no splits; "
        f"error by {resamples} bootstrap resamples of the samples"
    )
    return Score(
        name=f"class_score[{network}]",
        value=from_log_probs(samples.x),
        stderr=float(drawn.std()),
        n=n,
        unit="classes",
        kind="estimate",
        split=samples.split,
        weights=weights,  # type: ignore[arg-type]
        protocol=f"{how}; {protocol}" if protocol else how,
    )
