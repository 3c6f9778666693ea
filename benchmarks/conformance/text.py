"""Text: what a model gives to tokens, and translations beside references."""

import math
from functools import cache

import torch
from torch import Tensor

from benchmarks.conformance.table import Values, closed_form, implementation, load
from common.evaluation.text import Tokens, bits_per_char_score, bleu_score, chrf_score, perplexity_score


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# -- Perplexity and bits per character --------------------------------------------------------------------------------


@cache
def sequences(n: int = 40, longest: int = 30, vocabulary: int = 50) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (n, T, V), the tokens that came (n, T), and how many of them count (n,)."""
    logits = 2 * torch.randn(n, longest, vocabulary, generator=seeded(30), dtype=torch.float64)
    came = torch.randint(vocabulary, (n, longest), generator=seeded(31))
    return logits, came, torch.randint(1, longest + 1, (n,), generator=seeded(32))


SEQUENCES = "40 sequences of 1 to 30 tokens of a vocabulary of 50, random logits (seeds 30 to 32), in uneven batches"


def gathered() -> Tokens:
    logits, came, lengths = sequences()
    log_prob = logits.log_softmax(-1).gather(2, came[..., None])[..., 0]
    found = Tokens()
    for part in torch.arange(len(came)).split([7, 1, 32]):
        found.add(log_prob[part], lengths[part])
    return found


@closed_form("perplexity", "9 sequences of 4 to 12 tokens, the uniform model of 1,000 tokens", "1,000", relative=1e-6)
def _() -> Values:
    lengths = torch.arange(4, 13)
    tokens = Tokens().add(torch.full((9, 12), -math.log(1000.0)), lengths)
    return perplexity_score(tokens, split="test").value, 1000.0


@implementation("torchmetrics", "perplexity", SEQUENCES, "text.Perplexity, padding ignored, float64", relative=1e-10)
def _() -> Values:
    logits, came, lengths = sequences()
    metric = load("torchmetrics.text").Perplexity(ignore_index=-100)
    metric.set_dtype(torch.float64)
    padded = came.where(torch.arange(came.shape[1]) < lengths[:, None], -100)
    return perplexity_score(gathered(), split="test").value, float(metric(logits, padded))


@closed_form(
    "bits_per_char",
    "9 sequences of 4 to 12 tokens, each token 3 characters, the uniform model of 1,000 tokens",
    "log₂(1,000) / 3",
    relative=1e-6,
)
def _() -> Values:
    lengths = torch.arange(4, 13)
    tokens = Tokens().add(torch.full((9, 12), -math.log(1000.0)), lengths)
    return bits_per_char_score(tokens, 3 * lengths, split="test").value, math.log2(1000) / 3


# -- BLEU and chrF ----------------------------------------------------------------------------------------------------

HYPOTHESES = [
    "The cat sat on the mat, and did not move.",
    "It is raining; take an umbrella with you!",
    "He has read the book that you gave him.",
    "A short one.",
    "Prices rose by 3.5 % in the second quarter of 2019.",
]
REFERENCES = [
    "The cat sat on the mat and did not move.",
    "It rains: take your umbrella with you.",
    "He read the book you had given to him.",
    "That is a short one.",
    "In the second quarter of 2019, prices rose by 3.5%.",
]
SENTENCES = "five English sentences, one reference each"


def our_bleu() -> float:
    return bleu_score(HYPOTHESES, REFERENCES, split="test", generator=seeded(), resamples=2).value


def our_chrf(word_order: int) -> float:
    return chrf_score(
        HYPOTHESES, REFERENCES, split="test", generator=seeded(), resamples=2, word_order=word_order
    ).value


@implementation("sacrebleu", "bleu", SENTENCES, "corpus_bleu, tokenizer 13a", relative=1e-12)
def _() -> Values:
    return our_bleu(), load("sacrebleu").corpus_bleu(HYPOTHESES, [REFERENCES]).score


@implementation("torchmetrics", "bleu", SENTENCES, "text.SacreBLEUScore, tokenizer 13a", relative=1e-6)
def _() -> Values:
    metric = load("torchmetrics.text").SacreBLEUScore(tokenize="13a")
    return our_bleu(), 100 * float(metric(HYPOTHESES, [[one] for one in REFERENCES]))


@closed_form("bleu", "sentences against themselves", "100", relative=1e-12)
def _() -> Values:
    return bleu_score(REFERENCES, REFERENCES, split="test", generator=seeded(), resamples=2).value, 100.0


for _order, _name in ((0, "chrF"), (2, "chrF++")):

    @implementation("sacrebleu", "chrf", SENTENCES, f"corpus_chrf, {_name}", relative=1e-12)
    def _(order: int = _order) -> Values:
        found = load("sacrebleu").corpus_chrf(HYPOTHESES, [REFERENCES], word_order=order)
        return our_chrf(order), found.score


@implementation(
    "torchmetrics",
    "chrf",
    SENTENCES,
    "text.CHRFScore, chrF++",
    relative=1e-6,
    differs="It takes an F-score for each length of runs and averages these; sacreBLEU, and ours through it, averages "
    "precisions and recalls over the lengths and takes one F-score.",
)
def _() -> Values:
    metric = load("torchmetrics.text").CHRFScore(n_word_order=2)
    return our_chrf(2), 100 * float(metric(HYPOTHESES, [[one] for one in REFERENCES]))
