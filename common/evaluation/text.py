"""How well text is predicted (perplexity, bits per character), and how near it is to references (BLEU, chrF).

Perplexity is one exponential of one mean over all tokens:

    perplexity = exp(- sum over sequences of log p / sum over sequences of tokens)

A mean of the sequences' perplexities is another and larger number (Jensen), and a mean of batch means depends on how
the batches were cut. Perplexities by different vocabularies do not compare, since their tokens differ in length. Bits
per character do: the same nats are divided by the characters that the tokens stand for, whatever the tokens are.

Tokens of a sequence are anything but independent. The error therefore takes sequences as what was drawn, and the value
as a ratio of two sums over them (Cochran 1977, section 6.4): with R = sum y / sum t over n sequences,

    stderr(R)^2 = n / (n - 1) sum (y_i - R t_i)^2 / (sum t_i)^2.

Blocks cut from one running text are neighbours rather than draws; of them it says less than it seems to.

BLEU and chrF are sacrebleu's, whose signature says how they were computed and goes into the protocol.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.errors import ConfigError, DataError
from common.records import Kind, Score

ROUNDING = 1e-4
"""Nats by which a token's log-probability may lie above 0: what float32 leaves of a softmax over a large vocabulary."""


class Tokens:
    """What a model gives to the tokens of sequences, gathered in batches: nats and tokens of each sequence.

    >>> Tokens().add(torch.tensor([[-1.0, -2.0], [-3.0, 0.0]]), torch.tensor([2, 1]))
    Tokens(2 sequences, 3 tokens, 6 nats)
    """

    def __init__(self) -> None:
        self._nats: list[Tensor] = []
        self._tokens: list[Tensor] = []

    def add(self, log_prob: Tensor, lengths: Tensor | None = None) -> "Tokens":
        """Take in sequences.

        Args:
            log_prob: (B, T) log p of each token given those before it, in nats. They are summed in float64.
            lengths: (B,) how many of the T are tokens; what is behind them is padding, and does not count whatever it
                holds. All are tokens unless given.

        Raises:
            DataError: other shapes, a length that is not within 0 to T, or a log-probability that is not a number,
                above 0, or -inf.
        """
        if log_prob.ndim != 2:
            raise DataError(f"log-probabilities of tokens are (B, T); these have the shape {tuple(log_prob.shape)}.")
        count, longest = log_prob.shape
        lengths = torch.full((count,), longest) if lengths is None else lengths.detach().cpu()
        if lengths.shape != (count,):
            raise DataError(f"{count} sequences have lengths ({count},); these have the shape {tuple(lengths.shape)}.")
        if lengths.is_floating_point() or bool(((lengths < 0) | (lengths > longest)).any()):
            raise DataError(f"a length is not a whole number from 0 to {longest}, the width of the batch.")
        is_token = torch.arange(longest) < lengths[:, None]
        x = log_prob.detach().to("cpu", torch.float64).where(is_token, 0.0)
        if not bool((x < math.inf).all()):  # NaN is not below anything
            raise DataError("a log-probability is not a finite number: look at the model's output.")
        if bool((x == -math.inf).any()):
            raise DataError("a token has a probability of zero: the perplexity is infinite.")
        if bool((x > ROUNDING).any()):
            raise DataError(
                f"a token has a log-probability of {float(x.max()):.4g}, above 0: it is negated, or a density."
            )
        self._nats.append(-x.sum(1))
        self._tokens.append(lengths.double())
        return self

    @property
    def nats(self) -> Tensor:
        """(n,) -log p of each sequence, float64."""
        return torch.cat([torch.zeros(0, dtype=torch.float64), *self._nats])

    @property
    def counts(self) -> Tensor:
        """(n,) tokens of each sequence, float64."""
        return torch.cat([torch.zeros(0, dtype=torch.float64), *self._tokens])

    def __repr__(self) -> str:
        return (
            f"Tokens({len(self.nats):,} sequences, {int(self.counts.sum()):,} tokens, {float(self.nats.sum()):g} nats)"
        )


def ratio(y: Tensor, t: Tensor) -> tuple[float, float | None]:
    """sum y / sum t over n units that were drawn, and its standard error to first order; None for a single unit.

    Args:
        y, t: (n,) float64 of each unit. Units with t = 0 change nothing but y.
    """
    n, total = len(t), t.sum()
    value = y.sum() / total
    if n < 2:
        return float(value), None
    return float(value), float(((y - value * t).square().sum() * n / (n - 1)).sqrt() / total)


def perplexity_score(
    tokens: Tokens, *, split: str, protocol: str = "", kind: Kind = "exact", weights: str = "raw"
) -> Score:
    """exp of the nats per token, as a `Score` named `perplexity`, over n sequences.

    The error is that of the nats per token, times the perplexity (delta method).

    Args:
        protocol: what else decides the value: the vocabulary, how much context a token has, whether an end-of-text
            token counts. How many tokens and sequences there are is stated already.
        kind: "exact" where the log-probabilities are the model's own, "bound" where they are bounds.

    Raises:
        DataError: there are no tokens.
    """
    per_token, error = _per(tokens.nats, tokens.counts, "tokens")
    value = math.exp(min(per_token, 700.0))
    how = f"{int(tokens.counts.sum()):,} tokens in {len(tokens.counts):,} sequences; error by sequences"
    how = f"{how}; {protocol}" if protocol else how
    error = None if error is None else value * error
    return Score("perplexity", value, error, len(tokens.counts), "perplexity", kind, split, weights, how)  # type: ignore[arg-type]


def bits_per_char_score(
    tokens: Tokens,
    characters: Tensor,
    *,
    split: str,
    protocol: str = "",
    kind: Kind = "exact",
    weights: str = "raw",
) -> Score:
    """Bits per character of the text that the tokens stand for, as a `Score` named `bits_per_char`.

    Args:
        characters: (n,) how many characters each sequence has, in the order in which they were added. The numbers of
            tokens where tokens are characters; of other tokens, the length of the text, which is not theirs.
        protocol, kind: as in `perplexity_score`.

    Raises:
        DataError: not as many numbers as sequences, a negative one, or no characters.
    """
    nats, counts = tokens.nats, tokens.counts
    if characters.shape != counts.shape:
        raise DataError(
            f"there are {len(counts)} sequences, and numbers of characters of the shape {tuple(characters.shape)}: "
            "one is needed for each."
        )
    if not bool((characters >= 0).all()):
        raise DataError("a sequence has less than no characters.")
    value, error = _per(nats / math.log(2), characters.double().cpu(), "characters")
    how = (
        f"{int(characters.sum()):,} characters as {int(counts.sum()):,} tokens in {len(counts):,} sequences; "
        "error by sequences"
    )
    how = f"{how}; {protocol}" if protocol else how
    return Score("bits_per_char", value, error, len(counts), "bits/char", kind, split, weights, how)  # type: ignore[arg-type]


def _per(y: Tensor, t: Tensor, what: str) -> tuple[float, float | None]:
    if len(t) == 0 or float(t.sum()) == 0:
        raise DataError(f"there are no {what} to average over.")
    return ratio(y, t)


# -- Text against references -------------------------------------------------------------------------------------------

References = Sequence[str] | Sequence[Sequence[str]]
"""One for each hypothesis: a string, or a list of strings that are all right."""

TOKENIZERS = ("13a", "intl", "char", "zh", "none")
"""sacrebleu's that need no further package and fetch nothing."""


def bleu_score(
    hypotheses: Sequence[str],
    references: References,
    *,
    split: str,
    generator: torch.Generator,
    tokenize: str = "13a",
    lowercase: bool = False,
    resamples: int = 1000,
    protocol: str = "",
    weights: str = "raw",
) -> Score:
    """Corpus BLEU (Papineni et al. 2002) by sacrebleu, 0 to 100, as a `Score` named `bleu`.

    The value is sacrebleu's to the digit. The standard error is the standard deviation over bootstrap resamples of
    sentences, each with its references (Koehn 2004): corpus BLEU is no mean over sentences. Text is given as people
    write it, not cut into tokens: `tokenize` does that, and "none" leaves it as it is.

    Args:
        hypotheses: what the model wrote.
        references: for each hypothesis a string, or a list of them. (sacrebleu wants them the other way round, a list
            for each translator, and ignores what is too many.)
        generator: for the resamples alone.
        tokenize: one of `TOKENIZERS`; "13a" is what translations into European languages are compared by.
        protocol: what else decides the value and is the same in all runs that are to be compared.

    Raises:
        DataError: no hypotheses, another number of references, something that is not text, or a hypothesis without
            any reference.
        ConfigError: another tokenizer, or fewer than two resamples.
    """
    from sacrebleu.metrics.bleu import BLEU

    if tokenize not in TOKENIZERS:
        raise ConfigError(
            f"tokenize = '{tokenize}' is not one of sacrebleu's that need nothing more: {', '.join(TOKENIZERS)}."
        )
    metric = BLEU(tokenize=tokenize, lowercase=lowercase, force=True)
    return _corpus_score("bleu", metric, hypotheses, references, split, generator, resamples, protocol, weights)


def chrf_score(
    hypotheses: Sequence[str],
    references: References,
    *,
    split: str,
    generator: torch.Generator,
    word_order: int = 0,
    lowercase: bool = False,
    resamples: int = 1000,
    protocol: str = "",
    weights: str = "raw",
) -> Score:
    """chrF (Popović 2015), or with word_order=2 chrF++, by sacrebleu, 0 to 100, as a `Score` named `chrf`.

    The F-score of character n-grams, with recall counted twice. Arguments and errors are those of `bleu_score`.
    """
    from sacrebleu.metrics.chrf import CHRF

    metric = CHRF(word_order=word_order, lowercase=lowercase)
    return _corpus_score("chrf", metric, hypotheses, references, split, generator, resamples, protocol, weights)


def _corpus_score(
    name: str,
    metric: Any,
    hypotheses: Sequence[str],
    references: References,
    split: str,
    generator: torch.Generator,
    resamples: int,
    protocol: str,
    weights: str,
) -> Score:
    if resamples < 2:
        raise ConfigError(f"resamples = {resamples}: an error bar takes at least 2.")
    streams = _streams(hypotheses, references)
    value = metric.corpus_score(list(hypotheses), streams).score
    # The counts of each sentence, whose sums the corpus' score is a function of.
    counts = np.asarray(metric._extract_corpus_statistics(list(hypotheses), streams), dtype=np.int64)
    n = len(counts)
    drawn = []
    for _ in range(resamples):
        chosen = torch.randint(n, (n,), generator=generator, device=generator.device).cpu().numpy()
        often = np.bincount(chosen, minlength=n)
        drawn.append(metric._compute_score_from_stats((often @ counts).tolist()).score)
    how = f"{n:,} sentences, sacrebleu {metric.get_signature()}; error by {resamples} resamples of sentences"
    return Score(
        name=name,
        value=float(value),
        stderr=float(np.std(drawn, ddof=1)) if n > 1 else None,
        n=n,
        unit="points",
        kind="estimate",
        split=split,
        weights=weights,  # type: ignore[arg-type]
        protocol=f"{how}; {protocol}" if protocol else how,
    )


def _streams(hypotheses: Sequence[str], references: References) -> list[list[str | None]]:
    """References as sacrebleu takes them: a list for each translator, None where there is no further one."""
    if len(hypotheses) == 0:
        raise DataError("there are no hypotheses to score.")
    if isinstance(hypotheses, str) or isinstance(references, str):
        raise DataError("hypotheses and references are lists of texts; one of them is a single text.")
    if len(hypotheses) != len(references):
        raise DataError(
            f"{len(hypotheses)} hypotheses and {len(references)} references: one is needed for each, and those of a "
            "hypothesis that has several belong in a list of its own."
        )
    each = [[r] if isinstance(r, str) else list(r) for r in references]
    for i, (hypothesis, texts) in enumerate(zip(hypotheses, each, strict=True)):
        if not texts:
            raise DataError(f"hypothesis {i} has no reference.")
        if not all(isinstance(text, str) for text in (hypothesis, *texts)):
            raise DataError(f"hypothesis {i} or its reference is not text.")
    most = max(map(len, each))
    return [[texts[k] if k < len(texts) else None for texts in each] for k in range(most)]
