"""Attention's programs in Triton's interpreter: values and gradients, by the public functions, and how often they run.

The results are made of NaN before a program writes them. bfloat16 is cut off, not rounded, by the interpreter when a
program writes it, hence its tolerance of two units.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from clip_core.errors import ConfigError
from clip_core.kernels import attention, packed_attention, use_backend
from clip_core.kernels.programs import attention as programs
from clip_core.kernels.programs.launching import LAUNCHES

BOTH = pytest.mark.parametrize("causal", [False, True])


def numbers(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@contextlib.contextmanager
def poisoned() -> Iterator[list[Tensor]]:
    """Tensors that are made without values inside, which are NaN instead."""
    made: list[Tensor] = []
    empty = torch.empty

    def make(*arguments: object, **options: object) -> Tensor:
        made.append(empty(*arguments, **options))  # type: ignore[call-overload]
        return made[-1].fill_(math.nan)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "empty", make)
        yield made


def by_program(
    packed: Tensor, gradient: Tensor, causal: bool, starts: Tensor | None = None, longest: int = 0, launches: int = 1
) -> tuple[Tensor, Tensor]:
    """The result and the gradient of `packed`, by the public functions, in so many launches each."""
    LAUNCHES.clear()
    leaf = packed.detach().requires_grad_()
    with use_backend("triton"), poisoned() as made:
        if starts is None:
            out = attention(leaf, causal=causal)
        else:
            out = packed_attention(leaf, starts, longest, causal=causal)
        (d_packed,) = torch.autograd.grad(out, leaf, gradient)
    assert {out.shape, packed.shape} <= {one.shape for one in made}
    assert [LAUNCHES[name] for name in ("attend", "attend_backward")] == [launches] * 2
    assert out.dtype == d_packed.dtype == packed.dtype
    return out.detach(), d_packed


def directly(
    packed: Tensor, gradient: Tensor, causal: bool, starts: Tensor | None = None, longest: int = 0
) -> tuple[Tensor, Tensor]:
    """As `by_program`, without the operations around the programs, whose first call takes seconds."""
    longest = packed.shape[1] if starts is None else longest
    with poisoned():
        out = programs.attention_forward(packed, starts, longest, causal=causal)
        return out, programs.attention_backward(gradient, packed, starts, longest, causal=causal)


def by_formula(packed: Tensor, gradient: Tensor, causal: bool) -> tuple[Tensor, Tensor]:
    """(B, S, 3, H, C) in float64: the softmax from its logarithm, and the gradients as they are on paper."""
    query, key, value = packed.double().transpose(1, 3).unbind(2)  # (B, H, S, C)
    d_out = gradient.double().transpose(1, 2)
    factor = 1 / math.sqrt(packed.shape[-1])
    logits = query @ key.mT * factor
    if causal:
        logits = logits.masked_fill(torch.ones_like(logits, dtype=torch.bool).triu(1), -math.inf)
    weights = (logits - logits.logsumexp(-1, keepdim=True)).exp()
    out = weights @ value
    d_weights = d_out @ value.mT
    d_logits = weights * (d_weights - (d_out * out).sum(-1, keepdim=True)) * factor
    d_packed = torch.stack([d_logits @ key, d_logits.mT @ query, weights.mT @ d_out], dim=2)
    return out.transpose(1, 2), d_packed.transpose(1, 3)


def by_torch(packed: Tensor, gradient: Tensor, causal: bool) -> tuple[Tensor, Tensor]:
    """By torch's plain composition and its autograd, in the dtype of the arguments."""
    leaf = packed.detach().requires_grad_()
    query, key, value = leaf.permute(2, 0, 3, 1, 4).unbind(0)
    with sdpa_kernel(SDPBackend.MATH):
        out = F.scaled_dot_product_attention(query, key, value, is_causal=causal).transpose(1, 2)
    return out.detach(), torch.autograd.grad(out, leaf, gradient)[0]


def check(packed: Tensor, gradient: Tensor, causal: bool) -> None:
    found = by_program(packed, gradient, causal)
    again = by_program(packed, gradient, causal)
    for formula in (by_formula, by_torch):
        close(found, formula(packed.double(), gradient.double(), causal))
    assert all(torch.equal(one, other) for one, other in zip(found, again, strict=True))


def close(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    for ours, exact in zip(found, expected, strict=True):
        unit = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}[ours.dtype]
        size = exact.abs().max().item() if exact.numel() else 0.0
        torch.testing.assert_close(ours.double(), exact, atol=unit * max(size, 1e-30), rtol=unit)


def ragged(lengths: list[int], behind: int) -> tuple[Tensor, int]:
    """Where sequences begin, and how many tokens there are with those behind the last one."""
    starts = torch.tensor([0, *lengths]).cumsum(0).int()
    return starts, int(starts[-1]) + behind


def check_packed(
    packed: Tensor, gradient: Tensor, starts: Tensor, longest: int, causal: bool, launches: int
) -> tuple[Tensor, Tensor]:
    found = by_program(packed, gradient, causal, starts, longest, launches)
    bounds = starts.tolist()
    for begin, end in itertools.pairwise(bounds):
        here = slice(begin, end)
        one = packed[None, here].double(), gradient[None, here].double()
        for formula in (by_formula, by_torch):
            if begin < end:
                close(tuple(whole[None, here] for whole in found), formula(*one, causal))
    assert not any(whole[bounds[-1] :].count_nonzero() for whole in found)
    return found


@BOTH
@pytest.mark.parametrize("channels", [16, 72])
def test_programs_alone(channels: int, causal: bool) -> None:
    packed, gradient = numbers(2, 19, 3, 2, channels), numbers(2, 19, 2, channels, seed=1)
    close(directly(packed, gradient, causal), by_formula(packed, gradient, causal))


@BOTH
@pytest.mark.parametrize("channels", [16, 24, 40, 64, 72, 80, 88, 104, 120, 128])
def test_channels(channels: int, causal: bool) -> None:
    check(numbers(2, 19, 3, 2, channels), numbers(2, 19, 2, channels, seed=1), causal)


@BOTH
@pytest.mark.parametrize(("tokens", "channels"), [(65, 64), (77, 64), (80, 40), (81, 64), (77, 72), (128, 104)])
def test_long_sequences(tokens: int, channels: int, causal: bool) -> None:
    check(numbers(1, tokens, 3, 2, channels), numbers(1, tokens, 2, channels, seed=1), causal)


@pytest.mark.parametrize(("causal", "step"), [(False, 1), (True, 9)])  # all causal ones are packed below
def test_every_length(causal: bool, step: int) -> None:
    for tokens in range(1, 129, step):
        packed, gradient = numbers(1, tokens, 3, 1, 16, seed=tokens), numbers(1, tokens, 1, 16, seed=tokens + 1)
        found = directly(packed, gradient, causal)
        close(found, by_formula(packed, gradient, causal))
        close(found, by_torch(packed.double(), gradient.double(), causal))


@BOTH
@pytest.mark.parametrize(
    ("lengths", "longest", "launches"),
    [
        ([3, 0, 17, 1, 16, 33, 32], 64, 3),
        ([1, 1, 1], 1, 1),
        ([0, 77, 0, 65, 64, 20], 77, 4),
        ([128, 0, 80, 81, 1], 128, 4),
        ([5, 9], 128, 4),
        ([0, 0], 16, 1),
    ],
)
def test_sequences_of_many_lengths(lengths: list[int], longest: int, launches: int, causal: bool) -> None:
    starts, tokens = ragged(lengths, behind=37)
    packed, gradient = numbers(tokens, 3, 2, 24), numbers(tokens, 2, 24, seed=1)
    check_packed(packed, gradient, starts, longest, causal, launches)


def test_every_length_side_by_side() -> None:
    starts, tokens = ragged(list(range(129)), behind=0)
    packed, gradient = numbers(tokens, 3, 1, 16), numbers(tokens, 1, 16, seed=1)
    check_packed(packed, gradient, starts, 128, True, 4)


@pytest.mark.parametrize("lengths", [[40, 3, 70, 0, 1, 66, 33, 50, 77], [64]])
def test_programs_that_take_several_sequences(lengths: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "_ENOUGH", 0)
    starts, tokens = ragged(lengths, behind=3)
    packed, gradient = numbers(tokens, 3, 2, 16), numbers(tokens, 2, 16, seed=1)
    check_packed(packed, gradient, starts, 77, True, 4)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the interpreter's arithmetic is numpy's
@BOTH
@pytest.mark.parametrize("junk", [math.nan, math.inf])
def test_nothing_leaks_between_sequences(junk: float, causal: bool) -> None:
    starts, tokens = ragged([5, 20, 3, 64, 9], behind=6)
    packed, gradient = numbers(tokens, 3, 1, 24), numbers(tokens, 1, 24, seed=1)
    clean = directly(packed, gradient, causal, starts, 64)
    for one in (1, 3, 5):  # the last is what stands behind all sequences
        here = slice(int(starts[one]), int(starts[one + 1]) if one < 5 else tokens)
        others = torch.ones(tokens, dtype=torch.bool)
        others[here] = False
        dirty, dirty_gradient = packed.clone(), gradient.clone()
        dirty[here] = dirty_gradient[here] = junk
        found = directly(dirty, dirty_gradient, causal, starts, 64)
        assert all(torch.equal(a[others], b[others]) for a, b in zip(found, clean, strict=True))
        assert all(whole[here].isnan().any() == (one < 5) for whole in found)


@BOTH
@pytest.mark.parametrize("sign", [1, -1])
def test_logits_beyond_the_range_of_exp(sign: int, causal: bool) -> None:
    packed, gradient = numbers(1, 40, 3, 2, 64), numbers(1, 40, 2, 64, seed=1)
    packed[:, :, 0] += 10
    packed[:, :, 1] += 10 * sign
    logits = packed[:, :, 0].transpose(1, 2) @ packed[:, :, 1].transpose(1, 2).mT / 8
    assert (sign * logits.logsumexp(-1)).min() > 400
    found = by_program(packed, gradient, causal)
    for ours, exact in zip(found, by_formula(packed, gradient, causal), strict=True):
        torch.testing.assert_close(ours.double(), exact, atol=3e-4 * exact.abs().max().item(), rtol=0)


@BOTH
def test_a_key_that_wins_by_far(causal: bool) -> None:
    packed, gradient = numbers(1, 33, 3, 1, 16), numbers(1, 33, 1, 16, seed=1)
    packed[:, 7, 1] *= 300
    check(packed, gradient, causal)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("tokens", "channels"), [(50, 64), (77, 64), (20, 88)])
def test_half_precision(dtype: torch.dtype, tokens: int, channels: int) -> None:
    packed = numbers(1, tokens, 3, 2, channels, dtype=dtype)
    gradient = numbers(1, tokens, 2, channels, seed=1, dtype=dtype)
    for causal in (False, True):
        close(by_program(packed, gradient, causal), by_formula(packed, gradient, causal))


@BOTH
@pytest.mark.parametrize("scale", [1, 3])
def test_errors_are_no_larger_than_those_of_torch_in_float16(scale: float, causal: bool) -> None:
    packed = (scale * numbers(1, 77, 3, 2, 64)).half()
    gradient = numbers(1, 77, 2, 64, seed=1).half()
    before = torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)
    try:
        theirs = by_torch(packed, gradient, causal)
    finally:
        torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(before)
    exact = by_formula(packed, gradient, causal)
    ours = by_program(packed, gradient, causal)
    errors = [[(a.double() - b).norm().item() for a, b in zip(half, exact, strict=True)] for half in (ours, theirs)]
    assert all(mine <= 1.2 * other for mine, other in zip(*errors, strict=True)), errors


LAYOUTS = {
    "a part of a wider layer": lambda x: torch.cat([x, x], dim=-1)[..., : x.shape[-1]],
    "a part of an odder layer": lambda x: torch.cat([x, x[..., :1]], dim=-1)[..., : x.shape[-1]],
    "tokens first": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
    "heads last": lambda x: x.transpose(-1, -2).contiguous().transpose(-1, -2),
    "not aligned": lambda x: torch.cat([x.flatten()[:1], x.flatten()])[1:].view(x.shape),
    "one row for all": lambda x: x[:1, :1].expand(x.shape),
    "one number for all": lambda x: x.flatten()[:1].view((1,) * x.ndim).expand(x.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout: str) -> None:
    packed, gradient = numbers(2, 20, 3, 2, 24), numbers(2, 20, 2, 24, seed=1)
    packed, gradient = LAYOUTS[layout](packed), LAYOUTS[layout](gradient)
    for one, other in ((packed, gradient.contiguous()), (packed.contiguous(), gradient), (packed, gradient)):
        expected = by_program(one.contiguous(), other.contiguous(), True)
        found = by_program(one, other, True)
        close(found, by_formula(one, other, True))
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    starts, _ = ragged([4, 16], behind=0)
    check_packed(packed[0], gradient[0], starts, 16, True, 1)


def test_starts_that_lie_apart() -> None:
    starts, tokens = ragged([4, 16], behind=2)
    packed, gradient = numbers(tokens, 3, 2, 24), numbers(tokens, 2, 24, seed=1)
    check_packed(packed, gradient, starts.repeat_interleave(2)[::2], 16, True, 1)


def test_sequences_more_than_two_billion_numbers_apart() -> None:
    storage = torch.empty(2**31 + 3 * 5 * 16, dtype=torch.float16)  # only what is touched of these 4 GiB is there
    packed = storage.as_strided((2, 5, 3, 1, 16), (2**31, 48, 16, 16, 1)).copy_(numbers(2, 5, 3, 1, 16))
    gradient = storage.as_strided((2, 5, 1, 16), (2**31 - 8, 16, 16, 1), storage_offset=8)
    out, d_packed = by_program(packed, gradient, False)
    close((out, d_packed), by_formula(packed, gradient, False))
    starts = torch.tensor([0, 0, 5], dtype=torch.int32)
    out, d_packed = by_program(packed[1], gradient[1], True, starts, 5)
    close((out[None], d_packed[None]), by_formula(packed[1:], gradient[1:], True))
    apart = storage.as_strided((1, 17, 3, 1, 16), (0, 2**27, 16, 16, 1)).copy_(numbers(1, 17, 3, 1, 16))
    close(by_program(apart, apart[:, :, 1], True), by_formula(apart, apart[:, :, 1], True))


@pytest.mark.parametrize("shape", [(0, 7, 3, 2, 16), (3, 0, 3, 2, 16), (3, 7, 3, 0, 16)])
def test_nothing_to_do(shape: tuple[int, ...]) -> None:
    packed = numbers(*shape)
    out, d_packed = by_program(packed, packed[:, :, 0], True, launches=0)
    assert out.shape == packed[:, :, 0].shape
    assert d_packed.shape == packed.shape


def test_no_sequences() -> None:
    packed = numbers(7, 3, 2, 16)
    check_packed(packed, packed[:, 0], torch.tensor([0], dtype=torch.int32), 0, True, 0)
    check_packed(packed, packed[:, 0], torch.tensor([0, 0], dtype=torch.int32), 0, True, 1)
    check_packed(packed[:0], packed[:0, 0], torch.tensor([0, 0], dtype=torch.int32), 5, True, 0)


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        ((1, 129, 3, 1, 16), torch.float32, "129"),
        ((1, 130, 3, 1, 16), torch.float32, "130"),
        ((1, 5, 3, 1, 8), torch.float32, "8 channels"),
        ((1, 5, 3, 1, 20), torch.float32, "20 channels"),
        ((1, 5, 3, 1, 136), torch.float32, "136 channels"),
        ((1, 5, 3, 1, 16), torch.float64, "float64"),
    ],
)
def test_what_has_no_program_is_refused(shape: tuple[int, ...], dtype: torch.dtype, message: str) -> None:
    packed = numbers(*shape, dtype=dtype)
    for refused in (
        lambda: programs.attention_forward(packed, None, shape[1], causal=True),
        lambda: programs.attention_backward(packed[:, :, 0], packed, None, shape[1], causal=True),
    ):
        with pytest.raises(ConfigError, match=message):
            refused()


@BOTH
@pytest.mark.parametrize("longest", [0, 5, 16, 20, 77])
def test_sequences_that_are_too_long_are_nan_and_no_others(longest: int, causal: bool) -> None:
    lengths = [3, 90, 16, 0, 17, 140, 5]
    starts, tokens = ragged(lengths, behind=3)
    packed, gradient = numbers(tokens, 3, 2, 24), numbers(tokens, 2, 24, seed=1)
    found = directly(packed, gradient, causal, starts, longest)
    for length, begin in zip(lengths, starts.tolist(), strict=False):
        here = slice(begin, begin + length)
        if length > longest:
            assert all(whole[here].isnan().all() for whole in found)
        elif length:
            exact = by_formula(packed[None, here], gradient[None, here], causal)
            close(tuple(whole[None, here] for whole in found), exact)
    assert not any(whole[-3:].count_nonzero() for whole in found)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the interpreter's arithmetic is numpy's
@pytest.mark.parametrize("starts", [[0, 2**30], [-(2**30), 3, 9], [5, 9], [0, 8, 2, 9], [2**30, -9, 2**30]], ids=str)
def test_wrong_starts_reach_nothing_outside(starts: list[int]) -> None:
    room, d_room = numbers(29, 3, 2, 16), numbers(29, 2, 16, seed=1)
    packed, gradient = room[10:19], d_room[10:19]
    given = torch.tensor(starts, dtype=torch.int32)
    out, d_packed = directly(packed, gradient, False, given, 9)  # what is far outside is a segmentation fault
    room[:10] = room[19:] = d_room[:10] = d_room[19:] = math.nan
    again = directly(packed, gradient, False, given, 9)
    torch.testing.assert_close(again, (out, d_packed), atol=0, rtol=0, equal_nan=True)
    if len(starts) == 2:
        exact = by_formula(packed[None], gradient[None], False)
        close((out[None], d_packed[None]), exact)


def test_starts_of_64_bits() -> None:
    starts, tokens = ragged([4, 16], behind=2)
    packed, gradient = numbers(tokens, 3, 2, 24), numbers(tokens, 2, 24, seed=1)
    check_packed(packed, gradient, starts.long(), 16, True, 1)
