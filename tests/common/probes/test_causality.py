"""Autoregressive networks, right ones and those known to have gone wrong elsewhere."""

import pytest
import torch
from torch import Tensor

from common.errors import ConfigError
from common.probes import causality
from common.probes.result import ProbeResult

DIMS = 5
ORDER = torch.tensor([3, 1, 5, 2, 4])


def bits(n: int = 8, dims: int = DIMS) -> Tensor:
    """Examples of 0s and 1s, both values in every dimension."""
    x = torch.randint(0, 2, (n, dims), generator=torch.Generator().manual_seed(0)).double()
    x[0], x[1] = 0, 1
    return x


def masked(wrong: str = "", order: Tensor = ORDER, parameters: int = 1):
    """A masked network with one hidden layer of every connectivity, with switches to spoil it."""
    generator = torch.Generator().manual_seed(0)
    m = torch.arange(1, DIMS).repeat(6)  # each number six times
    w = torch.randn(len(m), DIMS, generator=generator, dtype=torch.float64)
    v = torch.randn(parameters, DIMS, len(m), generator=generator, dtype=torch.float64)
    inputs = m[:, None] >= order
    outputs = (order[:, None] >= m) if wrong == ">= at the output" else (order[:, None] > m)
    if wrong == "a forgotten unit":
        outputs[:, m == 2] = False
    little = 1e-30 if wrong == "nearly masked" else 0.0

    def conditionals(x: Tensor) -> Tensor:
        given = x
        if wrong == "in place":
            x.clamp_(max=0.5)
        h = torch.tanh(x @ (w * (inputs + little * ~inputs)).T)
        y = torch.einsum("bk,pdk->bdp", h, v * outputs)
        if wrong == "a comparison":
            y = y + (given > 0.5)[..., None]
        return y[..., 0] if parameters == 1 else y

    return conditionals


def assert_caught(result: ProbeResult, words: str) -> None:
    assert not result.passed, result
    assert words in result.detail, result


@pytest.mark.parametrize("parameters", [1, 3])
def test_a_masked_network_passes(parameters):
    result = causality(masked(parameters=parameters), bits(), order=ORDER)
    assert result.passed, result
    assert result.numbers["dims"] == DIMS
    assert result.numbers["leaks"] == result.numbers["blind_spots"] == result.numbers["moved"] == 0


def test_without_an_order_it_is_the_dimensions_own():
    natural = torch.arange(1, DIMS + 1)
    assert causality(masked(order=natural), bits()).passed
    assert_caught(causality(masked(), bits()), "leaks")


def test_every_leak_is_found():
    """Each single connection from j to i that must not be, on top of a right network."""
    right = masked()
    for i in range(DIMS):
        for j in range(DIMS):
            if ORDER[j] < ORDER[i]:
                continue

            for size in (1e-12, -1e-12):
                leak = size * torch.eye(DIMS).double()[i]
                result = causality(lambda x, j=j, leak=leak: right(x) + x[:, j : j + 1] * leak, bits(), order=ORDER)
                assert_caught(result, f"leaks: output {i} depends on input {j}")
                assert result.numbers["leaks"] == 1
            leak = torch.eye(DIMS).double()[i]  # and one without a derivative
            compared = lambda x, j=j, leak=leak: right(x) + (x[:, j : j + 1] > 0.5) * leak  # noqa: E731
            assert causality(compared, bits(), order=ORDER).numbers["moved"] == 1


@pytest.mark.parametrize("wrong", [">= at the output", "nearly masked"])
def test_a_derivative_that_should_be_zero_is_found(wrong):
    assert_caught(causality(masked(wrong), bits(), order=ORDER), "leaks: output")


def test_a_dependence_without_a_derivative_is_found():
    result = causality(masked("a comparison"), bits(), order=ORDER)
    assert_caught(result, "change with inputs that do not come before them")
    assert result.numbers["leaks"] == 0


@pytest.mark.parametrize("slope", [1.0, 0.0], ids=["with a derivative", "without"])
def test_a_leak_in_a_single_example_is_found(slope):
    """Output 0 sees its own input, but where all else is 1 alone."""
    right, first = masked(), torch.eye(DIMS).double()[0]

    def leaky(x: Tensor) -> Tensor:
        own = x[:, :1] if slope else (x[:, :1] > 0.5).double()
        return right(x) + own * (x[:, 1:] == 1).all(1, keepdim=True) * first

    x = torch.tensor([[1.0, 0, 1, 0, 1], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]]).double()
    result = causality(leaky, x, order=ORDER)
    assert not result.passed
    assert (result.numbers["leaks"], result.numbers["moved"]) == ((1, 1) if slope else (0, 1))


def test_parameters_beyond_the_first_count_and_do_not_cancel():
    right = masked(parameters=2)
    for signs in ([0.0, 1.0], [1.0, -1.0]):
        result = causality(lambda x, s=signs: right(x) + x[..., None] * torch.tensor(s), bits(), order=ORDER)
        assert_caught(result, "leaks: output 0 depends on input 0")


def test_blind_spots_are_found_unless_they_are_known():
    wrong = masked("a forgotten unit")  # only units with m = 2 lead from the second dimension of the order to the third
    result = causality(wrong, bits(), order=ORDER)
    assert result.detail == "blind spots: output 0 does not depend on input 3"
    assert causality(wrong, bits(), order=ORDER, blind_spots=True).passed
    constant = causality(torch.zeros_like, bits(), order=ORDER)
    assert constant.numbers["blind_spots"] == DIMS * (DIMS - 1) / 2
    assert_caught(constant, "and 7 more")


def test_a_tensor_that_is_the_callers_must_stay():
    assert_caught(causality(masked("in place"), bits(), order=ORDER), "modifies the tensor it is given")


def test_outputs_of_another_shape_are_reported():
    assert_caught(causality(lambda x: x.sum(1), bits()), "have shape (8,)")


@pytest.mark.parametrize(
    ("x", "order", "words"),
    [
        (bits()[:1], None, "two or more examples"),
        (bits().long(), None, "two or more examples"),
        (bits()[..., None], None, "two or more examples"),
        (bits().index_fill(1, torch.tensor(2), 1.0), None, "dimension 2 of x has one value only"),
        (bits(), [1, 2, 3], "does not give 5 dimensions"),
        (bits(), [1, 2, 3, 4, 4], "does not give 5 dimensions"),
    ],
)
def test_instances_that_show_nothing_are_refused(x, order, words):
    with pytest.raises(ConfigError, match=words.replace("(", r"\(")):
        causality(masked(), x, order=order)
