"""Attention, dense and packed, on a CPU: against float64 one sequence at a time, and as an operation of torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from clip_core.errors import ConfigError
from clip_core.kernels import attention, packed_attention
from clip_core.layers import attention as layers
from clip_core.layers.attention import Attention
from interpreted import run_interpreted

INTERPRETED = Path(__file__).parent / "interpreted/test_attention_operations.py"


def drawn(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def by_hand(packed: Tensor, causal: bool) -> Tensor:
    """(S, 3, H, C) -> (S, H, C), one sequence, written out."""
    query, key, value = packed.permute(1, 2, 0, 3)
    logits = query @ key.mT / packed.shape[-1] ** 0.5
    if causal:
        logits = logits.masked_fill(torch.ones_like(logits, dtype=torch.bool).triu(1), -torch.inf)
    return (logits.softmax(-1) @ value).transpose(0, 1)


def one_by_one(packed: Tensor, lengths: list[int], causal: bool) -> Tensor:
    rows = packed.split([*lengths, len(packed) - sum(lengths)])
    return torch.cat([*(by_hand(row, causal) for row in rows[:-1]), 0 * rows[-1][:, 0]])


def starts_of(lengths: list[int]) -> Tensor:
    return torch.tensor([0, *lengths]).cumsum(0).int()


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shape", [(2, 7, 3, 2, 8), (1, 1, 3, 1, 5), (3, 4, 3, 2, 8), (0, 4, 3, 2, 8)])
def test_dense_attention_is_the_formula(shape: tuple[int, ...], causal: bool) -> None:
    packed = drawn(*shape).requires_grad_()
    out = attention(packed, causal=causal)
    expected = torch.stack([by_hand(row, causal) for row in packed]) if len(packed) else packed[:, :, 0]
    torch.testing.assert_close(out, expected)
    gradient = drawn(*out.shape, seed=1)
    torch.testing.assert_close(*(torch.autograd.grad(value, packed, gradient)[0] for value in (out, expected)))


LENGTHS = [[3, 0, 5, 1, 0], [7], [0, 4], [1, 1, 1], [0, 0], [0]]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("slack", [0, 2])
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_packed_attention_is_that_of_each_sequence(lengths: list[int], slack: int, causal: bool) -> None:
    packed = drawn(sum(lengths) + slack, 3, 2, 8).requires_grad_()
    expected = one_by_one(packed, lengths, causal)
    gradient = drawn(*expected.shape, seed=1)
    (right,) = torch.autograd.grad(expected, packed, gradient)
    for longest in (max(lengths), max(lengths) + 3):
        out = packed_attention(packed, starts_of(lengths), longest, causal=causal)
        torch.testing.assert_close(out, expected)
        torch.testing.assert_close(torch.autograd.grad(out, packed, gradient)[0], right)


@pytest.mark.parametrize("causal", [False, True])
def test_in_training_bfloat16_is_rounded_at_the_end_alone(causal: bool) -> None:
    # torch's own backward pass in bfloat16 rounds inside, and takes three times as long on a CPU.
    lengths = [9, 4]
    packed = drawn(2, 9, 3, 2, 8, dtype=torch.bfloat16).requires_grad_()
    exact = packed.detach().float().requires_grad_()
    gradient = drawn(2, 9, 2, 8, dtype=torch.bfloat16, seed=1)
    ways = [
        (lambda x: attention(x, causal=causal), gradient),
        (
            lambda x: packed_attention(x.flatten(0, 1)[:13], starts_of(lengths), 9, causal=causal),
            gradient.flatten(0, 1)[:13],
        ),
    ]
    for attend, upstream in ways:
        with torch.autocast("cpu", torch.bfloat16):
            out = attend(packed)
        expected = attend(exact)
        assert out.dtype == torch.bfloat16
        assert torch.equal(out, expected.bfloat16())
        (found,) = torch.autograd.grad(out, packed, upstream)
        (right,) = torch.autograd.grad(expected, exact, upstream.float())
        assert torch.equal(found, right.bfloat16())


@pytest.mark.parametrize("causal", [False, True])
def test_no_sequence_sees_another(causal: bool) -> None:
    packed, starts = drawn(9, 3, 2, 8), starts_of([3, 4])
    clean = packed_attention(packed, starts, 4, causal=causal)
    for junk in (torch.nan, torch.inf):
        spoilt = packed.clone()
        spoilt[3:] = junk
        spoilt.requires_grad_()
        out = packed_attention(spoilt, starts, 4, causal=causal)
        assert torch.equal(out[:3], clean[:3])
        assert not out[7:].any()
        (gradient,) = torch.autograd.grad(out[:3].sum(), spoilt)
        assert gradient[:3].isfinite().all()


def test_packed_attention_can_be_differentiated_twice() -> None:
    packed, starts = drawn(6, 3, 1, 4).requires_grad_(), starts_of([2, 0, 3])
    for causal in (False, True):
        # The math of SDPA has second derivatives; its fused kernels have none.
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            assert torch.autograd.gradgradcheck(
                lambda packed, causal=causal: packed_attention(packed, starts, 4, causal=causal), (packed,)
            )


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiled_as_one_graph(dynamic: bool) -> None:
    torch.compiler.reset()

    def step(rows: Tensor, tokens: Tensor, starts: Tensor) -> Tensor:
        return attention(rows, causal=True).sum() + packed_attention(tokens, starts, 5, causal=True).sin().sum()

    inputs = (drawn(2, 7, 3, 2, 8).requires_grad_(), drawn(9, 3, 2, 8).requires_grad_())
    results = []
    for call in (step, torch.compile(step, fullgraph=True, dynamic=dynamic, backend="aot_eager")):
        out = call(*inputs, starts_of([5, 3]))
        results.append([out, *torch.autograd.grad(out, inputs)])
    for eager, compiled in zip(*results, strict=True):
        torch.testing.assert_close(compiled, eager)


def test_starts_of_64_bits_and_a_length_of_numpy() -> None:
    packed, starts = drawn(9, 3, 2, 8), starts_of([5, 3])
    expected = packed_attention(packed, starts, 5, causal=True)
    assert torch.equal(packed_attention(packed, starts.long(), np.int64(5), causal=True), expected)


@pytest.mark.parametrize("causal", [False, True])
def test_where_values_are_not_read_a_sequence_that_is_too_long_is_nan(causal: bool) -> None:
    torch.compiler.reset()
    compiled = torch.compile(packed_attention, fullgraph=True, backend="aot_eager")  # reads no value, as on a device
    packed = drawn(12, 3, 2, 8).requires_grad_()
    for longest in (0, 1, 3):
        out = compiled(packed, starts_of([1, 5, 3]), longest, causal=causal)
        right = one_by_one(packed, [1, 5, 3], causal)
        (gradient,) = torch.autograd.grad(out.nansum(), packed)
        for here, length in ((slice(0, 1), 1), (slice(1, 6), 5), (slice(6, 9), 3)):
            if length > longest:
                assert out[here].isnan().all()
                assert gradient[here][:longest].isnan().all()
            else:
                torch.testing.assert_close(out[here], right[here])
                assert gradient[here].isfinite().all()
        assert not out[9:].any()
        assert not gradient[9:].any()


@pytest.mark.parametrize("starts", [[0, 900], [-7, 3, 9], [5, 9], [0, 8, 2, 9], [900, -900, 900]], ids=str)
def test_where_values_are_not_read_nothing_outside_is_touched(starts: list[int]) -> None:
    torch.compiler.reset()
    compiled = torch.compile(packed_attention, fullgraph=True, backend="aot_eager")
    packed = drawn(9, 3, 2, 8).requires_grad_()
    out = compiled(packed, torch.tensor(starts), 9, causal=False)  # an index that is outside raises on a CPU
    torch.autograd.grad(out.sum(), packed)
    if starts == [0, 900]:
        torch.testing.assert_close(out, by_hand(packed, False))


@pytest.mark.parametrize("causal", [False, True])
def test_a_layer_has_the_bits_of_torch(causal: bool) -> None:
    layer = Attention(24, 3, causal=causal)
    layer.reset_parameters()
    x = drawn(2, 7, 24, dtype=torch.float32)
    query, key, value = F.linear(x, layer.in_proj_weight, layer.in_proj_bias).view(2, 7, 3, 3, 8).unbind(2)
    heads = [part.transpose(1, 2) for part in (query, key, value)]
    expected = layer.out_proj(F.scaled_dot_product_attention(*heads, is_causal=causal).transpose(1, 2).flatten(2))
    assert torch.equal(layer(x), expected)
    mask = torch.ones(7, 7, dtype=torch.bool)
    torch.testing.assert_close(layer(x, mask.tril() if causal else mask), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_what_is_packed_has_its_dtype(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    seen: list[torch.dtype] = []

    def record(packed: Tensor, *, causal: bool) -> Tensor:
        seen.append(packed.dtype)
        return attention(packed, causal=causal)

    monkeypatch.setattr(layers, "attention", record)
    layer = Attention(24, 3, causal=True)
    layer.reset_parameters()
    with torch.autocast("cpu", dtype=dtype):
        assert layer(drawn(2, 7, 24, dtype=torch.float32)).dtype == dtype
    assert seen == [dtype]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: attention(drawn(7, 3, 2, 8), causal=True), r"packed of shape \(7, 3, 2, 8\); allowed: \(batch,"),
        (lambda: attention(drawn(2, 7, 2, 2, 8), causal=True), r"\(2, 7, 2, 2, 8\)"),
        (lambda: packed_attention(drawn(2, 7, 3, 2, 8), starts_of([7]), 7, causal=True), r"packed \(2, 7, 3, 2, 8\)"),
        (lambda: packed_attention(drawn(7, 3, 2, 8), torch.zeros(0).int(), 7, causal=True), r"starts \(0,\)"),
        (lambda: packed_attention(drawn(7, 3, 2, 8), torch.zeros(2, 2).int(), 7, causal=True), r"starts \(2, 2\)"),
        (lambda: packed_attention(drawn(7, 3, 2, 8), starts_of([7]), -1, causal=True), "longest -1"),
        (lambda: packed_attention(drawn(7, 3, 2, 8), starts_of([7]).to("meta"), 7, causal=True), "starts on meta"),
        (
            lambda: packed_attention(drawn(7, 3, 2, 8), [0, 7], 7, causal=True),
            "starts as list; allowed: a tensor",
        ),
        (
            lambda: packed_attention(drawn(7, 3, 2, 8), starts_of([7]).float(), 7, causal=True),
            "starts of torch.float",
        ),
        (lambda: packed_attention(drawn(7, 3, 2, 8), starts_of([7]), 7.0, causal=True), r"longest 7.0 \(float\)"),
        (lambda: packed_attention(drawn(7, 3, 2, 8), starts_of([8]), 8, causal=True), "end at 8, and 7 tokens"),
        (lambda: packed_attention(drawn(7, 3, 2, 8), starts_of([7]) + 1, 7, causal=True), "begin at 1, and 7 tokens"),
        (lambda: packed_attention(drawn(7, 3, 2, 8), starts_of([-1, 7]), 7, causal=True), "fall from 0 to -1 at 0"),
        (
            lambda: packed_attention(drawn(7, 3, 2, 8), starts_of([3, 4]), 3, causal=True),
            "4 tokens; allowed: 4 or",
        ),
        (lambda: packed_attention(drawn(7, 3, 2, 8), starts_of([7]), 0, causal=True), "longest 0 and a sequence of 7"),
        (lambda: packed_attention(drawn(7, 3, 2, 8).int(), starts_of([7]), 7, causal=True), "packed of torch.int32"),
        (lambda: attention(drawn(1, 7, 3, 2, 8).long(), causal=True), "attention got packed of torch.int64; allowed"),
        (lambda: attention(drawn(1, 7, 3, 2, 8).cfloat(), causal=True), "packed of torch.complex64"),
        (lambda: attention(drawn(1, 7, 3, 2, 8).to(torch.float8_e4m3fn), causal=True), "float8"),
        (lambda: attention(drawn(1, 7, 3, 2, 8).numpy(), causal=True), "packed as ndarray"),
    ],
)
def test_wrong_arguments_are_named(call, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        call()


def test_the_operations_in_the_interpreter() -> None:
    pytest.importorskip("triton", minversion="3.6")
    run_interpreted(INTERPRETED)


def test_a_mistake_in_what_is_handed_to_the_backward_pass_is_found(tmp_path: Path) -> None:
    pytest.importorskip("triton", minversion="3.6")
    right = "_backward(gradient, packed, starts, ctx.longest, ctx.causal)"
    plant = ("kernels/attention.py", right, right.replace("ctx.causal", "not ctx.causal"))
    run_interpreted(INTERPRETED, "-k", "handed_to_the_backward_pass", plant=plant, folder=tmp_path)
