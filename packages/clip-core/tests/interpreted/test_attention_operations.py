"""Attention as an operation of torch, its programs in Triton's interpreter: what training and compilers do with it.

`test_attention` beside this compares the programs' numbers with float64 at every shape; here shapes are few.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from clip_core.errors import ConfigError
from clip_core.kernels import attention, packed_attention, use_backend
from clip_core.kernels.programs.launching import LAUNCHES
from clip_core.layers.attention import Attention

LENGTHS = (3, 0, 5, 1)
STARTS = torch.tensor([0, 3, 3, 8, 9], dtype=torch.int32)
SLACK = 2


def drawn(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def dense(packed: Tensor) -> Tensor:
    return attention(packed, causal=True)


def varied(packed: Tensor) -> Tensor:
    return packed_attention(packed, STARTS, max(LENGTHS), causal=False)


def by_hand(packed: Tensor, causal: bool) -> Tensor:
    """(S, 3, H, C) -> (S, H, C), one sequence."""
    query, key, value = packed.permute(1, 2, 0, 3)
    logits = query @ key.mT * packed.shape[-1] ** -0.5
    if causal:
        logits = logits.masked_fill(torch.ones_like(logits, dtype=torch.bool).triu(1), -torch.inf)
    return (logits.softmax(-1) @ value).transpose(0, 1)


def expected(function: Callable[[Tensor], Tensor], packed: Tensor) -> Tensor:
    if function is dense:
        return torch.stack([by_hand(row, True) for row in packed])
    rows = [by_hand(row, False) for row in packed.split([*LENGTHS, SLACK])[:-1]]
    return torch.cat([*rows, 0 * packed[-SLACK:, 0]])


CASES = [
    pytest.param(dense, (2, 6, 3, 2, 16), id="dense"),
    pytest.param(varied, (sum(LENGTHS) + SLACK, 3, 2, 16), id="packed"),
]


@pytest.fixture(autouse=True)
def _count() -> None:
    LAUNCHES.clear()


def launched() -> tuple[int, int]:
    return LAUNCHES["attend"], LAUNCHES["attend_backward"]


@pytest.mark.parametrize(("function", "shape"), CASES)
@pytest.mark.parametrize("upstream", ["drawn", "expanded"])
def test_the_choice_is_handed_to_the_backward_pass(function, shape: tuple[int, ...], upstream: str) -> None:
    packed = drawn(*shape).requires_grad_()
    with use_backend("triton"):
        out = function(packed)
    gradient = drawn(*out.shape, seed=1) if upstream == "drawn" else torch.full((), 65536.0).expand(out.shape)
    (found,) = torch.autograd.grad(out, packed, gradient)
    assert launched() == (1, 1)
    exact = packed.detach().double().requires_grad_()
    right = expected(function, exact)
    torch.testing.assert_close(out.double(), right, atol=1e-5, rtol=1e-5)
    (right,) = torch.autograd.grad(right, exact, gradient.double())
    largest = gradient.abs().max().item()
    torch.testing.assert_close(found.double(), right, atol=1e-5 * largest, rtol=1e-5)


# opcheck's own: it reads the gradient of the copies that it makes.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_the_operations_keep_the_rules_of_torch() -> None:
    rows, tokens = drawn(2, 6, 3, 2, 16), drawn(11, 3, 2, 16, dtype=torch.bfloat16)
    sliced = drawn(11, 3, 2, 24, dtype=torch.float16)[..., :16]
    for packed, starts, longest in ((rows, None, 6), (tokens, STARTS, 5), (sliced, STARTS, 5)):
        packed = packed.detach().requires_grad_()
        torch.library.opcheck(torch.ops.clip_core.attention, (packed, starts, longest, True))
    tests = ("test_schema", "test_faketensor")  # it refuses to be differentiated
    torch.library.opcheck(
        torch.ops.clip_core.attention_backward, (drawn(2, 6, 2, 16), rows, None, 6, False), test_utils=tests
    )


@pytest.mark.parametrize(("function", "shape"), CASES)
@pytest.mark.parametrize("dynamic", [False, True])
def test_compiled_as_one_graph(function, shape: tuple[int, ...], dynamic: bool) -> None:
    torch.compiler.reset()

    def step(packed: Tensor) -> Tensor:
        return function(2 * packed).sin()

    packed = drawn(*shape).requires_grad_()
    results = []
    with use_backend("triton"):
        for call in (step, torch.compile(step, fullgraph=True, dynamic=dynamic, backend="aot_eager")):
            LAUNCHES.clear()
            out = call(packed)
            results.append((out, torch.autograd.grad(out.sum(), packed)[0]))
            assert launched() == (1, 1)
    for eager, compiled in zip(*results, strict=True):
        assert torch.equal(eager, compiled)


@pytest.mark.parametrize(("function", "shape"), CASES)
def test_a_second_derivative_is_refused_and_named(function, shape: tuple[int, ...]) -> None:
    packed = drawn(*shape).requires_grad_()
    with use_backend("triton"):
        (gradient,) = torch.autograd.grad(function(packed).square().sum(), packed, create_graph=True)
    with pytest.raises(ConfigError, match=r"no second derivative; .*use_backend\('torch'\)"):
        gradient.sum().backward()


def test_a_layer_under_checkpointing_without_gradients_and_with_a_mask() -> None:
    torch.manual_seed(0)
    layer = Attention(32, 2, causal=True)
    layer.reset_parameters()
    x = drawn(2, 7, 32).requires_grad_()
    right = layer(x)
    (right_gradient,) = torch.autograd.grad(right.sum(), x)
    with use_backend("triton"):
        out = checkpoint(layer, x, use_reentrant=False)
        (gradient,) = torch.autograd.grad(out.sum(), x)
        assert launched() == (2, 1)
        with torch.no_grad():
            torch.testing.assert_close(layer(x), out, atol=0, rtol=0)
        assert launched() == (3, 1)
        mask = torch.ones(7, 7, dtype=torch.bool).tril()
        torch.testing.assert_close(layer(x, mask), right)
        assert launched() == (3, 1)
    torch.testing.assert_close(out, right, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(gradient, right_gradient, atol=1e-5, rtol=1e-5)


def test_under_autocast_the_program_works_in_its_dtype() -> None:
    layer = Attention(32, 2, causal=False)
    layer.reset_parameters()
    x = drawn(2, 7, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        right = layer(x)
        with use_backend("triton"):
            out = layer(x)
    assert launched() == (1, 0)
    assert out.dtype == right.dtype == torch.bfloat16
    assert F.cosine_similarity(out.float().flatten(), right.float().flatten(), dim=0) > 0.999


def test_nothing_to_attend_to() -> None:
    starts = torch.zeros(3, dtype=torch.int32)
    for packed, call in (
        (drawn(0, 4, 3, 2, 16), dense),
        (drawn(2, 0, 3, 2, 16), dense),
        (drawn(0, 3, 2, 16), lambda packed: packed_attention(packed, starts, 0, causal=True)),
        (drawn(5, 3, 2, 16), lambda packed: packed_attention(packed, starts, 4, causal=True)),
        (drawn(5, 3, 2, 16), lambda packed: packed_attention(packed, starts[:1], 4, causal=True)),
    ):
        packed.requires_grad_()
        with use_backend("triton"):
            out = call(packed)
        assert out.shape == (*packed.shape[:-3], *packed.shape[-2:])
        assert not out.any()
        (gradient,) = torch.autograd.grad(out.sum(), packed)
        assert gradient.shape == packed.shape
        assert not gradient.any()
