"""A probe of sampling with a cache: are its draws those of sampling without one?"""

from collections.abc import Callable

import torch
from torch import Tensor

from common.errors import ConfigError
from common.probes.result import Findings, ProbeResult

Sampler = Callable[[torch.Generator], Tensor]
"""generator -> n draws, (n, ...): values, tokens, images; of any type."""


def cache(cached: Sampler, naive: Sampler, *, repeats: int = 3, seed: int = 0) -> ProbeResult:
    """Cached sampling equals naive sampling, token for token, with the same generator.

    Both samplers get generators of the same seed, `repeats` seeds one after the other. Required: the same shape and
    type, every value the same, and both leave the generator in the same state, or what is drawn next would differ.
    A cache that survives from one call to the next is found by asking the cached sampler for the first seed again.

    Exact, no tolerance. A cache sums in another order, so a conditional can differ by rounding, and a random number
    that falls between the two values gives another token: a chance of about 1e-15 a token in float64, 1e-6 in float32.
    Use float64 (`model.double()`).

    Inconclusive, and so failed: draws are the same for all seeds (a sampler does not use its generator, or the model is
    certain of everything), or more than half of the tokens never vary.

    Cost: 2 repeats + 1 calls of the samplers.

    Args:
        cached: the sampler to be examined.
        naive: the same draws by an obvious way, in which nothing is kept from one token to the next.
        repeats: number of seeds, at least 2.
        seed: the first of them.

    Raises:
        ConfigError: fewer than two repeats.
    """
    if repeats < 2:
        raise ConfigError(f"repeats = {repeats}: with one seed nobody sees whether draws depend on it; use 2 or more.")
    with Findings("cache", "cached sampling equals naive sampling, token for token, same generator") as found:
        wanted = [_draw(naive, seed + r) for r in range(repeats)]
        shape, dtype = wanted[0][0].shape, wanted[0][0].dtype
        if len(shape) < 2 or shape[0] < 2 or shape[1:].numel() < 2:
            raise found.broken(f"the naive sampler gives draws of shape {tuple(shape)}; (n >= 2, two tokens or more)")
        every = torch.cat([x for x, _ in wanted]).flatten(1)
        constant = int((every == every[:1]).all(0).sum())
        found.numbers |= {"draws": len(every), "tokens": every.shape[1], "constant_tokens": constant}
        found.expect(
            not all(torch.equal(x, wanted[0][0]) for x, _ in wanted[1:]),
            "inconclusive: naive draws are the same for every seed, as if the generator was not used",
        )
        found.expect(
            2 * constant <= every.shape[1],
            f"inconclusive: {constant} of {every.shape[1]} tokens never vary; use other weights, or more draws",
        )

        different, first = 0, wanted[0][0]
        alike = True
        for r, (x, state) in enumerate(wanted):
            got, got_state = _draw(cached, seed + r)
            if got.shape != shape or got.dtype != dtype:
                raise found.broken(
                    f"cached draws are {got.dtype} {tuple(got.shape)}, naive ones {dtype} {tuple(shape)}: not the same"
                )
            wrong = (got != x).flatten(1)
            different += int(wrong.sum())
            if bool(wrong.any()):
                draw, token = wrong.nonzero()[0].tolist()
                found.expect(
                    False,
                    f"seed {seed + r}: {int(wrong.sum())} of {wrong.numel()} tokens differ, the first of them token "
                    f"{token} of draw {draw}",
                )
            found.expect(
                torch.equal(got_state, state),
                f"seed {seed + r}: the generator is left in another state than by naive sampling",
            )
            first = got if r == 0 else first
            alike = alike and torch.equal(got, first)
        found.numbers["different"] = different
        found.expect(not alike, "inconclusive: cached draws are the same for every seed: the generator is ignored")
        found.expect(
            torch.equal(_draw(cached, seed)[0], first),
            "called again with the same seed, cached sampling gives other draws: something is kept between calls",
        )
    return found.result()


def _draw(sampler: Sampler, seed: int) -> tuple[Tensor, Tensor]:
    """A call's draws, and the state that it leaves its generator in."""
    generator = torch.Generator().manual_seed(seed)
    draws = sampler(generator)
    return draws.detach().clone().cpu(), generator.get_state()
