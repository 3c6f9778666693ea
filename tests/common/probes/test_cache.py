"""Samplers of a small autoregressive model with a cache, right ones and those that have gone wrong."""

import pytest
import torch
from torch import Tensor

from common.errors import ConfigError
from common.probes import cache
from common.probes.result import ProbeResult

TOKENS, LEVELS, DRAWS = 6, 3, 8


class Model:
    """Logits of token t: a matrix for each distance to the tokens before it."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.weights = torch.randn(TOKENS, LEVELS, LEVELS, generator=generator, dtype=torch.float64)
        self.bias = torch.randn(LEVELS, generator=generator, dtype=torch.float64)

    def logits(self, tokens: Tensor) -> Tensor:
        """Of the token after the first t, (n, t) -> (n, LEVELS)."""
        t = tokens.shape[1]
        return self.bias + sum(
            (self.weights[t - s][tokens[:, s]] for s in range(t)), torch.zeros(len(tokens), LEVELS).double()
        )


def pick(logits: Tensor, u: Tensor) -> Tensor:
    return (logits.softmax(1).cumsum(1)[:, :-1] <= u[:, None]).sum(1)


def naive(generator: torch.Generator) -> Tensor:
    model, u = Model(), torch.rand(DRAWS, TOKENS, generator=generator, dtype=torch.float64)
    tokens = torch.zeros(DRAWS, 0, dtype=torch.int64)
    for t in range(TOKENS):
        tokens = torch.cat([tokens, pick(model.logits(tokens), u[:, t])[:, None]], 1)
    return tokens


class Cached:
    """Keeps the sums for all tokens to come; with switches to spoil it."""

    def __init__(self, wrong: str = "") -> None:
        self.wrong = wrong
        self.sums = torch.zeros(DRAWS, TOKENS, LEVELS, dtype=torch.float64)

    def __call__(self, generator: torch.Generator) -> Tensor:
        model = Model()
        if self.wrong == "another order of draws":
            u = torch.rand(TOKENS, DRAWS, generator=generator, dtype=torch.float64).T
        else:
            u = torch.rand(DRAWS, TOKENS, generator=generator, dtype=torch.float64)
        if self.wrong == "one draw too many":
            torch.rand(1, generator=generator)
        if self.wrong == "a generator of its own":
            u = torch.rand(u.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        if self.wrong != "survives the call":
            self.sums = torch.zeros_like(self.sums)
        tokens = []
        for t in range(TOKENS):
            tokens.append(pick(model.bias + self.sums[:, t], u[:, t]))
            for later in range(t + 1, TOKENS):
                if self.wrong == "forgets what is far" and later - t > 4:
                    continue
                if self.wrong == "one place off":
                    self.sums[:, later] += model.weights[later - t - 1][tokens[-1]]
                else:
                    self.sums[:, later] += model.weights[later - t][tokens[-1]]
        result = torch.stack(tokens, 1)
        if self.wrong == "another type":
            return result.double()
        return result[:-1] if self.wrong == "a draw is missing" else result


def assert_caught(result: ProbeResult, words: str) -> None:
    assert not result.passed, result
    assert words in result.detail, result


def test_a_right_cache_passes():
    result = cache(Cached(), naive)
    assert result.passed, result
    assert result.numbers["different"] == 0
    assert result.numbers["draws"] == 3 * DRAWS
    assert result.numbers["tokens"] == TOKENS


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("one place off", "tokens differ"),
        ("forgets what is far", "tokens differ"),
        ("another order of draws", "tokens differ"),
        ("one draw too many", "another state"),
        ("a generator of its own", "the generator is ignored"),
        ("survives the call", "something is kept between calls"),
        ("another type", "not the same"),
        ("a draw is missing", "not the same"),
    ],
)
def test_a_wrong_cache_is_caught(wrong, words):
    assert_caught(cache(Cached(wrong), naive), words)


def test_a_single_wrong_token_is_found_and_named():
    def nearly(generator):
        tokens = naive(generator)
        tokens[5, 2] = (tokens[5, 2] + 1) % LEVELS
        return tokens

    result = cache(nearly, naive, repeats=2)
    assert_caught(result, "token 2 of draw 5")
    assert result.numbers["different"] == 2


def test_samplers_that_show_nothing_are_inconclusive():
    def deaf(generator):
        torch.rand(1, generator=generator)
        return naive(torch.Generator().manual_seed(0))

    assert_caught(cache(deaf, deaf), "inconclusive")

    def constant(generator):
        tokens = naive(generator)
        tokens[:, 1:] = 0  # only the first one varies
        return tokens

    assert_caught(cache(constant, constant), "inconclusive: 5 of 6 tokens never vary")


def test_too_few_seeds_or_tokens_are_refused():
    with pytest.raises(ConfigError, match="use 2 or more"):
        cache(Cached(), naive, repeats=1)
    assert_caught(cache(lambda g: naive(g)[:, 0], lambda g: naive(g)[:, 0]), "shape (8,)")
