"""Perplexity against its definition and by simulation; BLEU and chrF against sacrebleu and by hand."""

import math

import numpy as np
import pytest
import sacrebleu
import torch
from torch import Tensor

from common.errors import ConfigError, DataError, RecordError
from common.evaluation.text import Tokens, bits_per_char_score, bleu_score, chrf_score, perplexity_score, ratio


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# -- Perplexity --------------------------------------------------------------------------------------------------------


def documents(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Log-probabilities (n, 30) and lengths: documents of 1 to 30 tokens, some harder than others, long ones easier."""
    g = seeded(seed)
    lengths = torch.randint(1, 31, (n,), generator=g)
    rate = 0.5 + 2 * torch.rand(n, generator=g) + 8 / (4 + lengths)
    return rate[:, None] * torch.log(torch.rand(n, 30, generator=g).clamp(min=1e-9)), lengths


def test_a_uniform_model_has_as_many_choices_as_it_has() -> None:
    tokens = Tokens().add(torch.full((5, 7), -math.log(50)), torch.tensor([7, 1, 3, 7, 2]))
    score = perplexity_score(tokens, split="test")
    assert score.value == pytest.approx(50)
    assert score.stderr == pytest.approx(0, abs=1e-6)
    assert (score.name, score.n, score.kind) == ("perplexity", 5, "exact")
    assert score.protocol == "20 tokens in 5 sequences; error by sequences"
    bits = bits_per_char_score(tokens, tokens.counts, split="test")
    assert bits.value == pytest.approx(math.log2(50))
    assert bits.unit == "bits/char"


def test_it_is_one_exponential_of_one_mean_over_tokens() -> None:
    tokens = Tokens().add(torch.tensor([[-1.0, -1.0, -1.0], [-5.0, 0.0, 0.0]]), torch.tensor([3, 1]))
    score = perplexity_score(tokens, split="val", protocol="bytes")
    assert score.value == pytest.approx(math.exp(8 / 4))  # not (e + e^5)/2, nor exp((1 + 5)/2)
    assert score.protocol.endswith("; bytes")
    assert "3 tokens" not in repr(tokens)
    assert "4 tokens" in repr(tokens)


@pytest.mark.parametrize("sizes", [[40], [1] * 40, [13, 13, 13, 1], [0, 39, 1]])
def test_neither_batches_nor_padding_matter(sizes: list[int]) -> None:
    log_prob, lengths = documents(40, 0)
    expected = sum(float(log_prob[i, j].double()) for i in range(40) for j in range(int(lengths[i])))
    tokens = Tokens()
    for x, n in zip(torch.split(log_prob, sizes), torch.split(lengths, sizes), strict=True):
        width = int(n.max()) if len(n) else 0
        padded = torch.full((len(x), width + 2), math.nan)
        padded[:, :width] = torch.where(torch.arange(width) < n[:, None], x[:, :width], 7.0)
        before = padded.clone()
        tokens.add(padded, n)
        assert torch.equal(padded.nan_to_num(9), before.nan_to_num(9))
    score = perplexity_score(tokens, split="test")
    assert score.value == pytest.approx(math.exp(-expected / int(lengths.sum())), rel=1e-12)
    again = perplexity_score(Tokens().add(log_prob.flip(0), lengths.flip(0)), split="test")
    assert (again.value, again.stderr) == pytest.approx((score.value, score.stderr), rel=1e-12)


def test_many_small_tokens_are_summed_without_loss() -> None:
    tokens = Tokens().add(torch.full((1, 3_000_000), -0.1))
    assert float(tokens.nats[0]) == pytest.approx(3e6 * float(torch.tensor(0.1)), rel=1e-12)


def test_bits_per_character_divide_by_characters_and_not_by_tokens() -> None:
    tokens = Tokens().add(torch.full((2, 6), -math.log(2)))
    score = bits_per_char_score(tokens, torch.tensor([20, 28]), split="test")
    assert score.value == pytest.approx(12 / 48)
    assert score.protocol == "48 characters as 12 tokens in 2 sequences; error by sequences"


def test_the_error_is_how_much_other_documents_would_change_it() -> None:
    scores = [perplexity_score(Tokens().add(*documents(60, seed)), split="test") for seed in range(600)]
    spread = float(np.std([s.value for s in scores], ddof=1))
    stated = float(np.sqrt(np.mean([s.stderr**2 for s in scores if s.stderr is not None])))
    assert stated / spread == pytest.approx(1, abs=0.12)

    tokens = Tokens().add(*documents(400, 1000))  # and by the bootstrap over documents
    often = np.random.default_rng(0).multinomial(400, [1 / 400] * 400, size=3000)
    resampled = (often @ tokens.nats.numpy()) / (often @ tokens.counts.numpy())
    assert ratio(tokens.nats, tokens.counts)[1] == pytest.approx(float(resampled.std()), rel=0.08)


def test_one_sequence_has_no_error() -> None:
    assert perplexity_score(Tokens().add(torch.full((1, 9), -1.0)), split="test").stderr is None


@pytest.mark.parametrize(
    ("log_prob", "lengths", "message"),
    [
        (torch.zeros(3), None, r"are \(B, T\)"),
        (torch.zeros(2, 3), torch.tensor([1, 2, 3]), r"lengths \(2,\)"),
        (torch.zeros(2, 3), torch.tensor([1, 4]), "from 0 to 3"),
        (torch.zeros(2, 3), torch.tensor([1.0, 2.0]), "from 0 to 3"),
        (torch.tensor([[0.0, math.nan]]), None, "not a finite number"),
        (torch.tensor([[0.0, math.inf]]), None, "not a finite number"),
        (torch.tensor([[0.0, -math.inf]]), None, "probability of zero"),
        (torch.tensor([[2.0, -1.0]]), None, "of 2, above 0"),
    ],
)
def test_bad_log_probabilities_are_refused(log_prob: Tensor, lengths: Tensor | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Tokens().add(log_prob, lengths)


def test_nothing_to_average_over_is_refused() -> None:
    for empty in (Tokens(), Tokens().add(torch.zeros(2, 3), torch.tensor([0, 0]))):
        with pytest.raises(DataError, match="no tokens"):
            perplexity_score(empty, split="test")
    tokens = Tokens().add(torch.full((2, 3), -1.0))
    with pytest.raises(DataError, match="one is needed for each"):
        bits_per_char_score(tokens, torch.tensor([3, 3, 3]), split="test")
    with pytest.raises(DataError, match="no characters"):
        bits_per_char_score(tokens, torch.tensor([0, 0]), split="test")
    with pytest.raises(DataError, match="less than no"):
        bits_per_char_score(tokens, torch.tensor([9, -1]), split="test")
    with pytest.raises(RecordError, match="perplexity"):
        perplexity_score(Tokens().add(torch.full((2, 3), -900.0)), split="test")


# -- BLEU and chrF -----------------------------------------------------------------------------------------------------

HYPOTHESES = ["The cat sat on the mat today.", "A dog ran.", "It is raining cats and dogs here!", "no idea at all"]
REFERENCES = [
    "The cat sat on a mat today.",
    ["A dog was running.", "The dog ran."],
    ["It is raining very hard here!"],
    "nobody knows",
]
STREAMS = [
    ["The cat sat on a mat today.", "A dog was running.", "It is raining very hard here!", "nobody knows"],
    [None, "The dog ran.", None, None],
]


def test_the_values_are_those_of_sacrebleu() -> None:
    bleu = bleu_score(HYPOTHESES, REFERENCES, split="test", generator=seeded(), protocol="toy")
    assert bleu.value == sacrebleu.corpus_bleu(HYPOTHESES, STREAMS).score > 1
    assert bleu.protocol.startswith("4 sentences, sacrebleu nrefs:var|case:mixed|eff:no|tok:13a|smooth:exp|version:2.")
    assert bleu.protocol.endswith("; error by 1000 resamples of sentences; toy")
    assert (bleu.name, bleu.n, bleu.unit, bleu.kind) == ("bleu", 4, "points", "estimate")
    lower = bleu_score(HYPOTHESES, REFERENCES, split="test", generator=seeded(), tokenize="char", lowercase=True)
    assert lower.value == sacrebleu.corpus_bleu(HYPOTHESES, STREAMS, tokenize="char", lowercase=True).score
    assert "case:lc|eff:no|tok:char" in lower.protocol
    chrf = chrf_score(HYPOTHESES, REFERENCES, split="test", generator=seeded())
    assert chrf.value == sacrebleu.corpus_chrf(HYPOTHESES, STREAMS).score > 1
    assert "sacrebleu nrefs:var|case:mixed|eff:yes|nc:6|nw:0|space:no|version:2." in chrf.protocol
    more = chrf_score(HYPOTHESES, REFERENCES, split="test", generator=seeded(), word_order=2)
    assert more.value == sacrebleu.corpus_chrf(HYPOTHESES, STREAMS, word_order=2).score


def test_bleu_by_hand() -> None:
    """Six of six words, four of five pairs, two of four triples, one of three quadruples; one word too short."""
    score = bleu_score(["a b c d x e"], ["a b c d e x e"], split="test", generator=seeded(), tokenize="none")
    precisions = [6 / 6, 4 / 5, 2 / 4, 1 / 3]
    assert score.value == pytest.approx(100 * math.exp(1 - 7 / 6) * math.prod(precisions) ** 0.25)
    assert score.stderr is None  # other sentences are not known from one


@pytest.mark.parametrize("metric", [bleu_score, chrf_score])
def test_equal_texts_have_all_points_and_others_none(metric) -> None:  # type: ignore[no-untyped-def]
    text = ["one two three four five"] * 3
    assert metric(text, text, split="test", generator=seeded()).value == pytest.approx(100)
    assert metric(["aaaa"] * 3, text, split="test", generator=seeded()).value == 0
    assert metric([""] * 3, text, split="test", generator=seeded()).value == 0


def corpus(n: int, seed: int) -> tuple[list[str], list[str]]:
    """Sentences of 5 to 15 of twenty words, of which the hypothesis gets some wrong."""
    rng = np.random.default_rng(seed)
    hypotheses, references = [], []
    for _ in range(n):
        words = rng.integers(20, size=rng.integers(5, 16))
        heard = np.where(rng.random(len(words)) < rng.uniform(0, 0.5), rng.integers(20, size=len(words)), words)
        hypotheses.append(" ".join(f"w{w}" for w in heard))
        references.append(" ".join(f"w{w}" for w in words))
    return hypotheses, references


@pytest.mark.parametrize("metric", [bleu_score, chrf_score])
def test_the_error_is_how_much_other_sentences_would_change_it(metric) -> None:  # type: ignore[no-untyped-def]
    settings = {"split": "test", "resamples": 50}
    scores = [metric(*corpus(40, seed), generator=seeded(), **settings) for seed in range(100)]
    spread = float(np.std([s.value for s in scores], ddof=1))
    stated = float(np.sqrt(np.mean([s.stderr**2 for s in scores])))
    assert stated / spread == pytest.approx(1, abs=0.2)


def test_the_error_depends_on_the_generator_and_the_value_does_not() -> None:
    a, b, c = (bleu_score(*corpus(30, 0), split="test", generator=seeded(s)) for s in (0, 0, 1))
    assert a == b
    assert a.value == c.value
    assert a.stderr != c.stderr


@pytest.mark.parametrize(
    ("hypotheses", "references", "message"),
    [
        ([], [], "no hypotheses"),
        (["a", "b"], ["a"], "2 hypotheses and 1 references"),
        (["a", "b"], [["a", "b"]], "2 hypotheses and 1 references"),  # sacrebleu would take these
        (["a"], ["a", "b"], "1 hypotheses and 2 references"),  # and ignore the second of these
        ("ab", ["a", "b"], "a single text"),
        (["a"], "a", "a single text"),
        (["a", "b"], ["a", []], "hypothesis 1 has no reference"),
        (["a", None], ["a", "b"], "hypothesis 1 or its reference is not text"),
        (["a"], [[3]], "hypothesis 0 or its reference is not text"),
    ],
)
@pytest.mark.parametrize("metric", [bleu_score, chrf_score])
def test_what_does_not_go_together_is_refused(metric, hypotheses, references, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(DataError, match=message):
        metric(hypotheses, references, split="test", generator=seeded())


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"tokenize = '13b'.*13a"):
        bleu_score(["a"], ["a"], split="test", generator=seeded(), tokenize="13b")
    with pytest.raises(ConfigError, match="resamples = 1"):
        chrf_score(["a"], ["a"], split="test", generator=seeded(), resamples=1)
