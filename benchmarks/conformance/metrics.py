"""What each metric measures, in a line, and the function that does: what the conformance table has rows for."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """A metric.

    Attributes:
        family: what it is one of; rows of a family are in the module of that name.
        what: what it measures, and which way is better.
        function: the function that works it out, by its full name.
    """

    family: str
    what: str
    function: str


METRICS = {
    "bits_per_dim": Metric(
        "likelihood",
        "Bits that a code of the data takes, an element: a log-likelihood whatever the size; lower is better.",
        "common.data.preprocess.bits_per_dim",
    ),
    "importance_bound": Metric(
        "likelihood",
        "A lower bound on log p(x) from k importance samples, tighter with larger k; higher is better.",
        "common.evaluation.likelihood.importance_log_likelihood",
    ),
    "ais": Metric(
        "likelihood",
        "log p(x) of a decoder by annealed importance sampling, which asks no encoder; higher is better.",
        "common.evaluation.ais.ais_log_likelihood",
    ),
    "bdmc": Metric(
        "likelihood",
        "Bounds on log p(x) from both sides, on data that the decoder simulated: how far off annealing is.",
        "common.evaluation.ais.bdmc",
    ),
    "fd": Metric(
        "sample distance",
        "Fréchet distance: two sets of features as Gaussians, by mean and covariance; lower is better.",
        "common.evaluation.frechet.frechet_distance",
    ),
    "fd_infinity": Metric(
        "sample distance",
        "The Fréchet distance that endless samples would have, from a line through several sizes; lower is better.",
        "common.evaluation.frechet_bias.fd_infinity_score",
    ),
    "kid": Metric(
        "sample distance",
        "Kernel distance, cubic kernel, unbiased however few samples there are, at times negative; lower is better.",
        "common.evaluation.kernels.kid",
    ),
    "mmd": Metric(
        "sample distance",
        "Kernel distance with Gaussian kernels, unbiased; lower is better.",
        "common.evaluation.kernels.mmd_squared",
    ),
    "class_score": Metric(
        "sample distance",
        "How clearly and how evenly samples fall into a classifier's classes, 1 to their number; higher is better.",
        "common.evaluation.class_score.from_log_probs",
    ),
    "sliced_wasserstein": Metric(
        "sample distance",
        "How far samples would have to be moved to lie like the data, along random lines; lower is better.",
        "common.evaluation.sliced.sliced_wasserstein",
    ),
    "c2st": Metric(
        "sample distance",
        "How often a classifier tells new samples from new data: 1/2 where it cannot; lower is better.",
        "common.evaluation.two_sample.c2st",
    ),
    "precision": Metric(
        "manifold",
        "Share of samples inside some ball of the data, from a point to its k-th neighbour; higher is better.",
        "common.evaluation.manifold.manifold_scores",
    ),
    "recall": Metric(
        "manifold",
        "Share of the data inside some ball of the samples; higher is better.",
        "common.evaluation.manifold.manifold_scores",
    ),
    "density": Metric(
        "manifold",
        "How many of the data's balls a sample lies in, of those expected: 1 for the data's equals; higher is better.",
        "common.evaluation.manifold.manifold_scores",
    ),
    "coverage": Metric(
        "manifold",
        "Share of the data whose ball holds a sample; higher is better.",
        "common.evaluation.manifold.manifold_scores",
    ),
    "copying": Metric(
        "memorisation",
        "Whether samples are nearer to training examples than held-out data are: N(0, 1) if not, far below 0 if so.",
        "common.evaluation.memorisation.copying",
    ),
    "copies": Metric(
        "memorisation",
        "Share of samples nearer to a training example than 99 % of held-out data are; 1 % without copying.",
        "common.evaluation.memorisation.copies",
    ),
    "psnr": Metric(
        "restoration",
        "Peak signal-to-noise ratio of images, in dB, the mean over images; higher is better.",
        "common.evaluation.restoration.psnr_score",
    ),
    "ssim": Metric(
        "restoration",
        "Structural similarity: local means, variances and covariances, 1 for equal images; higher is better.",
        "common.evaluation.restoration.ssim_score",
    ),
    "lpips": Metric(
        "restoration",
        "Distance of images in a network's features, as people see them apart; lower is better.",
        "common.evaluation.restoration.lpips_score",
    ),
    "snr": Metric(
        "audio",
        "Signal-to-noise ratio of restored sounds, in dB; higher is better.",
        "common.evaluation.audio.snr_score",
    ),
    "si_snr": Metric(
        "audio",
        "Signal-to-noise ratio whatever the loudness, in dB; higher is better.",
        "common.evaluation.audio.si_snr_score",
    ),
    "lsd": Metric(
        "audio",
        "Log-spectral distance: how far spectra are apart in dB, frame by frame; lower is better.",
        "common.evaluation.audio.lsd_score",
    ),
    "perplexity": Metric(
        "text",
        "exp of the nats that a token costs: among how many equally likely ones; lower is better.",
        "common.evaluation.text.perplexity_score",
    ),
    "bits_per_char": Metric(
        "text",
        "Bits that a character costs, whatever the tokens are; lower is better.",
        "common.evaluation.text.bits_per_char_score",
    ),
    "bleu": Metric(
        "text",
        "Shared runs of words of translations and references, 0 to 100; higher is better.",
        "common.evaluation.text.bleu_score",
    ),
    "chrf": Metric(
        "text",
        "Shared runs of characters of translations and references, 0 to 100; higher is better.",
        "common.evaluation.text.chrf_score",
    ),
}
