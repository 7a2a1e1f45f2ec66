"""Attention on a CUDA device, dense and packed, and packed text through a tower. Chosen with `-m gpu` (tools/gpu.py).

Errors are measured against float64 and compared with those of torch's attention for the same dtype. Where there is no
device but TRITON_INTERPRET=1, the same runs small on the CPU (tools/on_device.py).
"""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import clip_core
from clip_core import kernels
from on_device import CUDA, DEVICE, REHEARSAL, error, poisoned, repeated

pytestmark = pytest.mark.gpu

only_cuda = pytest.mark.skipif(not CUDA, reason="no CUDA device")
HEADS = 3
ROUGH = 8 if REHEARSAL else 1  # the interpreter cuts bfloat16 off


def drawn(*shape: int, seed: int = 0, spread: float = 1.0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).mul_(spread).to(DEVICE)


def torch_attention(packed: Tensor, causal: bool) -> Tensor:
    query, key, value = packed.transpose(1, 3).unbind(2)  # (B, H, 3, S, C)
    return F.scaled_dot_product_attention(query, key, value, is_causal=causal).transpose(1, 2)


def both(function, packed: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """The result and the gradient of `packed`."""
    leaf = packed.detach().requires_grad_()
    out = function(leaf)
    return out.detach(), torch.autograd.grad(out, leaf, gradient.to(out.dtype))[0]


def check(packed: Tensor, causal: bool, *, factor: float = 1.2) -> None:
    """The program's errors are at most 1.2 times those of torch's attention (3 times where there are few numbers)."""
    gradient = drawn(*packed.shape[:2], *packed.shape[3:], seed=1).to(packed.dtype)
    with kernels.use_backend("triton"), poisoned():
        found = both(lambda leaf: kernels.attention(leaf, causal=causal), packed, gradient)
    peer = both(lambda leaf: torch_attention(leaf, causal), packed, gradient)
    exact = both(lambda leaf: torch_attention(leaf, causal), packed.double(), gradient.double())
    factor = factor if packed.numel() > 2**16 else 3
    least = 2**-21 + (torch.finfo(packed.dtype).eps / 4 if packed.numel() <= 2**16 else 0)
    for ours, theirs, right, what in zip(found, peer, exact, ("result", "gradient"), strict=True):
        assert ours.dtype == packed.dtype
        assert ours.shape == right.shape
        allowed = ROUGH * (factor * error(theirs, right) + least * right.norm().item() + 1e-6)
        assert error(ours, right) <= allowed, f"{what}: {error(ours, right):.3g}, the peer's {error(theirs, right):.3g}"


CHANNELS = (64, 72, 80, 88, 104, 128) if CUDA else (64, 72, 104)
LENGTHS = (1, 2, 16, 17, 32, 33, 50, 64, 65, 77, 100, 127, 128) if CUDA else (5, 33)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("channels", CHANNELS)
def test_errors_are_at_most_those_of_torch(channels, length, causal) -> None:
    check(drawn(64 if CUDA else 2, length, 3, HEADS, channels).bfloat16(), causal)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("length", [50, 77] if CUDA else [17])
@pytest.mark.parametrize("channels", [64, 80])
def test_float16(channels, length, causal) -> None:
    check(drawn(64 if CUDA else 2, length, 3, HEADS, channels).half(), causal)


@pytest.mark.parametrize("causal", [False, True])
def test_every_length(causal) -> None:
    for length in range(1, 129) if CUDA else (1, 2, 3, 15, 16, 17):
        check(drawn(40 if CUDA else 2, length, 3, HEADS, 16).bfloat16(), causal)


@pytest.mark.parametrize("spread", [10.0, 60.0])
def test_large_logits(spread) -> None:
    packed = drawn(64 if CUDA else 2, 77 if CUDA else 12, 3, HEADS, 64)
    packed[:, :, 0] *= spread  # beyond 88, where exp overflows and underflows
    check(packed.bfloat16(), True, factor=1.5)


def test_views_and_other_strides() -> None:
    wide = drawn(8, 20, 3, HEADS, 80).bfloat16()
    plain = wide[..., :64].contiguous()
    gradient = drawn(8, 20, HEADS, 64, seed=1).bfloat16()
    with kernels.use_backend("triton"):
        right = both(lambda leaf: kernels.attention(leaf, causal=True), plain, gradient)
        for packed, given in (
            (wide[..., :64], gradient),
            (plain.transpose(0, 1).contiguous().transpose(0, 1), gradient.transpose(1, 2).contiguous().transpose(1, 2)),
            (plain.transpose(3, 4).contiguous().transpose(3, 4), gradient),
        ):
            for ours, theirs in zip(
                both(lambda leaf: kernels.attention(leaf, causal=True), packed, given), right, strict=True
            ):
                assert torch.equal(ours, theirs)
        ones = both(lambda leaf: kernels.attention(leaf, causal=True), plain, torch.ones_like(gradient))
        expanded = both(
            lambda leaf: kernels.attention(leaf, causal=True), plain, gradient.new_ones(()).expand_as(gradient)
        )
    assert torch.equal(ones[1], expanded[1])


def starts_of(lengths: list[int]) -> Tensor:
    return torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32, device=DEVICE)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("channels", [64, 80, 128] if CUDA else [64])
def test_packed_sequences_are_those_alone(channels, causal) -> None:
    lengths = [7, 0, 1, 77, 16, 33, 0, 20, 64, 2, 12] if CUDA else [3, 0, 1, 17, 5]
    slack = 5
    packed = drawn(sum(lengths) + slack, 3, HEADS, channels).bfloat16()
    gradient = drawn(len(packed), HEADS, channels, seed=1).bfloat16()
    starts = starts_of(lengths)
    with kernels.use_backend("triton"), poisoned():
        out, d_packed = both(
            lambda leaf: kernels.packed_attention(leaf, starts, max(lengths), causal=causal), packed, gradient
        )
    assert not out[-slack:].any()
    assert not d_packed[-slack:].any()
    for first, count in zip(starts.tolist(), lengths, strict=False):
        if count:
            span = slice(first, first + count)
            alone = packed[None, span]
            exact = both(lambda leaf: torch_attention(leaf, causal), alone.double(), gradient[None, span].double())
            peer = both(lambda leaf: torch_attention(leaf, causal), alone, gradient[None, span])
            for ours, theirs, right in zip((out[None, span], d_packed[None, span]), peer, exact, strict=True):
                allowed = 3 * error(theirs, right) + 2**-9 * right.norm().item() + 1e-6
                assert error(ours, right) <= ROUGH * allowed, count


def test_the_same_bits_twice() -> None:
    packed = drawn(64 if CUDA else 2, 77 if CUDA else 9, 3, HEADS, 64).bfloat16()
    gradient = drawn(*packed.shape[:2], HEADS, 64, seed=1).bfloat16()
    with kernels.use_backend("triton"):
        repeated(lambda: both(lambda leaf: kernels.attention(leaf, causal=True), packed, gradient), 3)


def test_small_run() -> None:
    """What compute-sanitizer looks at (tools/gpu.py sanitize): odd lengths and heads, both directions."""
    for length, channels, causal in ((50, 72, False), (77, 64, True)) if CUDA else ((5, 72, False),):
        check(drawn(3, length, 3, HEADS, channels).bfloat16(), causal)
    test_packed_sequences_are_those_alone(64, True)


@only_cuda
def test_offsets_beyond_two_to_the_31() -> None:
    packed = torch.empty(9216, 77, 3, 16, 64, dtype=torch.bfloat16, device=DEVICE)  # 2.2e9 elements
    packed.normal_(generator=torch.Generator(DEVICE).manual_seed(0))
    gradient = packed[:, :, 0].contiguous()
    with kernels.use_backend("triton"):
        out, d_packed = both(lambda leaf: kernels.attention(leaf, causal=True), packed, gradient)
        last = both(lambda leaf: kernels.attention(leaf, causal=True), packed[-3:].clone(), gradient[-3:].clone())
    assert torch.equal(out[-3:], last[0])
    assert torch.equal(d_packed[-3:], last[1])


@only_cuda
def test_captured_in_a_graph_and_replayed() -> None:
    packed = drawn(16, 77, 3, 8, 64).bfloat16().requires_grad_()

    def step() -> tuple[Tensor, Tensor]:
        out = kernels.attention(packed, causal=True)
        return out, torch.autograd.grad(out.sum(), packed)[0]

    with kernels.use_backend("triton"):
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = step()
        with torch.no_grad():
            packed.copy_(drawn(16, 77, 3, 8, 64, seed=5))
        graph.replay()
        for ours, theirs in zip(captured, step(), strict=True):
            assert torch.equal(ours, theirs)


@only_cuda
def test_compiled_without_a_break() -> None:
    packed = drawn(16, 50, 3, 12, 64).bfloat16().requires_grad_()

    def step(leaf: Tensor) -> Tensor:
        return kernels.attention(leaf, causal=False) * 2

    with kernels.use_backend("triton"):
        gradients = []
        for function in (step, torch.compile(step, fullgraph=True)):
            gradients.append(torch.autograd.grad(function(packed).float().square().sum(), packed)[0])
    torch.testing.assert_close(*gradients, atol=2e-2, rtol=2e-2)


@pytest.fixture(scope="module")
def texts() -> tuple[Tensor, Tensor]:
    """Ids (R, 77) as CLIP's tokenizer gives them, and how many of each row count; both on the host."""
    generator = torch.Generator().manual_seed(0)
    rows = 64 if CUDA else 4
    lengths = torch.randint(3, 40 if CUDA else 9, (rows,), generator=generator)
    lengths[0], lengths[1] = 77 if CUDA else 20, 2
    tokens = torch.zeros(rows, 77, dtype=torch.int64)
    for row, count in enumerate(lengths.tolist()):
        tokens[row, :count] = torch.randint(1, 49405, (count,), generator=generator)
        tokens[row, 0], tokens[row, count - 1] = 49406, 49407
    return tokens, lengths


def text_model() -> clip_core.Clip:
    torch.manual_seed(0)
    return clip_core.create_model("ViT-B-32", device=DEVICE)


@pytest.mark.parametrize("backend", ["triton", "torch"])
@pytest.mark.parametrize("autocast", [False, True] if CUDA else [False])
def test_packed_texts_are_the_padded_ones(texts, backend, autocast) -> None:
    if not CUDA and backend == "triton":
        pytest.skip("a tower takes too long in the interpreter")
    model = text_model()
    tokens, lengths = texts[0].to(DEVICE), texts[1]

    def step(**given: Tensor) -> tuple[Tensor, ...]:
        model.zero_grad()
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=autocast):
            features = model.encode_text(tokens, normalize=True, **given)
        (features.float() * drawn(*features.shape, seed=3)).sum().backward()
        named = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
        return features.detach(), *(named[name] for name in sorted(named) if "visual" not in name)

    with kernels.use_backend("torch"):
        padded = step()
    forced = kernels.use_backend(backend) if autocast or backend == "torch" else kernels.use_backend("torch")
    with forced:
        packed = step(lengths=lengths)
    for ours, theirs in zip(packed, padded, strict=True):
        assert error(ours, theirs) <= (0.02 if autocast else 2e-5) * theirs.double().norm().item()


@only_cuda
def test_packed_texts_wait_for_nothing(texts) -> None:
    model = text_model()
    tokens, lengths = texts[0].to(DEVICE), texts[1]
    with torch.autocast("cuda", torch.bfloat16), kernels.use_backend("triton"):
        model.encode_text(tokens, lengths=lengths).sum().backward()  # compiles, which may wait
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            model.encode_text(tokens, lengths=lengths).sum().backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")
