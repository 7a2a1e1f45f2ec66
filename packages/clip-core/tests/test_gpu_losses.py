"""The contrastive losses on a CUDA device: errors, memory, determinism, graphs. Chosen with `-m gpu` (tools/gpu.py).

Errors are measured against float64 and compared with those of torch for operands of the same precision and float32
logits. Where there is no device but TRITON_INTERPRET=1, the same runs small on the CPU (tools/on_device.py).
"""

from __future__ import annotations

import contextlib
import functools

import pytest
import torch
from torch import Tensor

from clip_core import kernels
from on_device import (
    CUDA,
    DEVICE,
    FEATURES,
    assert_close_enough,
    error,
    exact_loss,
    features,
    low_precision_loss,
    poisoned,
    repeated,
    run,
)

pytestmark = pytest.mark.gpu

only_cuda = pytest.mark.skipif(not CUDA, reason="no CUDA device")
LOSSES = ("clip_loss", "siglip_loss")
PAIRS = 2048 if CUDA else 40
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
GIB = 2**30


@pytest.fixture(autouse=True)
def _exact_reference():
    # The float32 of the references is float32.
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32 = before


@pytest.fixture(params=["triton", "torch"])
def backend(request):
    with kernels.use_backend(request.param):
        yield request.param


@pytest.fixture
def triton():
    with kernels.use_backend("triton"):
        yield


def scalars(name: str, scale: float) -> tuple[float, ...]:
    return (scale,) if name == "clip_loss" else (scale, -10.0)


def compare(name: str, x: Tensor, y: Tensor, scale: float, *, upstream: float = 1, autocast: bool = False) -> None:
    function = getattr(kernels, name)
    dtype = torch.bfloat16 if autocast else x.dtype
    values = scalars(name, scale)
    with torch.autocast(DEVICE.type, torch.bfloat16) if autocast else contextlib.nullcontext():
        found = run(function, x, y, *values, upstream=upstream)
    assert found.images.dtype == x.dtype
    exact = exact_loss(name, x, y, *values, upstream=upstream)
    peer = low_precision_loss(name, x, y, *values, dtype=dtype, upstream=upstream)
    longest = max(side.double().norm(dim=-1).amax().item() for side in (x, y))
    terms = abs(upstream) * scale * longest / len(x) ** 0.5
    assert_close_enough(found, peer, exact, dtype, scale * longest**2, terms)


@pytest.mark.parametrize("scale", [1.0, 14.3, 100.0])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", ["random", "trained", "duplicates"])
@pytest.mark.parametrize("name", LOSSES)
def test_errors_are_at_most_those_of_torch(backend, name, kind, dtype, scale) -> None:
    x, y = (side.to(dtype) for side in features(kind, PAIRS, 512 if CUDA else 24))
    compare(name, x, y, scale)


@pytest.mark.parametrize("scale", [0.0, 1e-4, 50.0, 1000.0])
@pytest.mark.parametrize("kind", FEATURES)
@pytest.mark.parametrize("name", LOSSES)
def test_unusual_features_and_scales(backend, name, kind, scale) -> None:
    x, y = features(kind, 257 if CUDA else 19, 64 if CUDA else 16)
    compare(name, x, y, scale)
    compare(name, x.bfloat16(), y.bfloat16(), scale)


@pytest.mark.parametrize("kind", ["random", "trained"])
@pytest.mark.parametrize("name", LOSSES)
def test_under_autocast(backend, name, kind) -> None:
    compare(name, *features(kind, PAIRS, 512 if CUDA else 24), 100.0, autocast=True)


@pytest.mark.parametrize("pairs", [1, 2, 15, 16, 17, 63, 64, 65, 127, 129, 257, 1000] if CUDA else [1, 2, 17, 33])
@pytest.mark.parametrize("name", LOSSES)
def test_every_number_of_pairs(triton, name, pairs) -> None:
    compare(name, *(side.bfloat16() for side in features("random", pairs, 64)), 14.3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("dim", [8, 16, 24, 640, 768, 896, 1000, 1024, 1152] if CUDA else [8, 40])
@pytest.mark.parametrize("name", LOSSES)
def test_every_number_of_features(triton, name, dim, dtype) -> None:
    compare(name, *(side.to(dtype) for side in features("trained", 300 if CUDA else 20, dim)), 50.0)


@pytest.mark.parametrize("upstream", [0.0, -3.0, 65536.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", LOSSES)
def test_upstream_gradients_of_every_size(triton, name, dtype, upstream) -> None:
    compare(name, *(side.to(dtype) for side in features("random", 300 if CUDA else 20, 64)), 14.3, upstream=upstream)


@pytest.mark.parametrize("name", LOSSES)
def test_views_and_an_expanded_upstream_gradient(triton, name) -> None:
    base = torch.cat(features("random", 130 if CUDA else 20, 64)).bfloat16()
    count = len(base) // 2
    plain = base[:count].contiguous(), base[count:].contiguous()
    padded = torch.empty(len(base), 97, dtype=base.dtype, device=DEVICE)
    padded[:, 3:67] = base
    views = {
        "offset": (padded[:count, 3:67], padded[count:, 3:67]),
        "transposed": (plain[0].T.contiguous().T, plain[1].T.contiguous().T),
        "every other": (base.repeat_interleave(2, 0)[: 2 * count : 2], plain[1]),
    }
    values = [torch.tensor(value, device=DEVICE) for value in scalars(name, 14.3)]

    def gradients(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        x, y = x.detach().requires_grad_(), y.detach().requires_grad_()
        losses = torch.stack([getattr(kernels, name)(x, y, *values) for _ in range(3)])
        return torch.autograd.grad(losses.sum(), (x, y))  # each gets a gradient of stride 0

    right = gradients(*plain)
    for kind, pair in views.items():
        for ours, theirs in zip(gradients(*pair), right, strict=True):
            assert error(ours, theirs) <= 2**-8 * theirs.double().norm(), kind


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize(("rows", "columns", "offset"), [(96, 300, 0), (96, 300, 150), (1, 130, 129), (130, 257, 100)])
def test_a_share_of_the_rows_against_all_columns(dtype, rows, columns, offset) -> None:
    from clip_core.kernels import blocks
    from clip_core.kernels.programs import contrastive, sigmoid

    if not CUDA:
        rows, columns, offset = (-(-value // 8) for value in (rows, columns, offset))
        offset = min(offset, columns - rows)
    images, y = (side.to(dtype) for side in features("trained", columns, 64))
    x = images[offset : offset + rows]
    scale, bias = torch.tensor(20.0, device=DEVICE), torch.tensor(-3.0, device=DEVICE)
    own = torch.linalg.vecdot(images.float(), y.float())
    exact = [value.double() for value in (x, y, own, scale)]
    losses = []
    with poisoned():
        found = contrastive.contrastive_statistics(x, y, own, scale, offset)
    for mine, right in zip(found, blocks.contrastive_statistics(*exact, offset), strict=True):
        assert mine.maximum.dtype == torch.float32
        losses.append(blocks.log_sum_exp(right))
        assert error(blocks.log_sum_exp(mine), losses[-1]) <= 2**-18 * losses[-1].norm()
    # A half-precision operand is rounded once: the gradient of the logits.
    bound = 2**-8 if dtype == torch.bfloat16 and CUDA else 2**-6 if dtype == torch.bfloat16 else 2**-18
    with poisoned():
        ours = contrastive.contrastive_gradients(x, y, own, scale, *(loss.float() for loss in losses), offset)
        loss, signed = sigmoid.sigmoid_loss(x, y, scale, bias, offset)
    right = blocks.contrastive_gradients(*exact, *losses, offset)
    right_loss, right_signed = blocks.sigmoid_loss(*exact[:2], scale.double(), bias.double(), offset)
    assert error(loss, right_loss) <= 2**-18 * right_loss
    for mine, theirs in ((ours, right), (signed, right_signed)):
        for name in ("rows", "columns"):
            value, wanted = getattr(mine, name), getattr(theirs, name)
            assert error(value, wanted) <= bound * wanted.norm(), name
        for name in ("scale", "bias"):
            value, wanted = getattr(mine, name), getattr(theirs, name)
            assert error(value, wanted) <= 2**-14 * (wanted.abs() + 1), name


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", LOSSES)
def test_the_same_bits_twice_and_all_of_them_written(triton, name, dtype) -> None:
    x, y = (side.to(dtype) for side in features("trained", 3000 if CUDA else 40, 512 if CUDA else 24))
    call = functools.partial(run, getattr(kernels, name), x, y, *scalars(name, 100.0))
    repeated(call, 3)
    with poisoned():
        for one, other in zip(call(), call(), strict=True):
            assert one.isfinite().all()
            assert torch.equal(one, other)


@pytest.mark.filterwarnings("ignore:.*encountered")  # numpy's, in the interpreter
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", LOSSES)
def test_what_is_not_finite_is_not_hidden(triton, name, value) -> None:
    x, y = features("random", 300 if CUDA else 20, 64 if CUDA else 16)
    x[7, 3] = value
    found = run(getattr(kernels, name), x.bfloat16(), y.bfloat16(), *scalars(name, 14.3))
    assert not found.loss.isfinite()
    # The sigmoid of an infinite logit is finite, and so is the gradient of its image.
    reached = found.texts if name == "siglip_loss" and value == float("inf") else found.images[7]
    assert not reached.isfinite().all()


@pytest.mark.parametrize("frozen", [0, 1])
@pytest.mark.parametrize("name", LOSSES)
def test_one_frozen_side(triton, name, frozen) -> None:
    pair = [side.bfloat16() for side in features("random", 300 if CUDA else 20, 64)]
    right = run(getattr(kernels, name), *pair, *scalars(name, 14.3))
    pair[1 - frozen].requires_grad_()
    getattr(kernels, name)(*pair, *(torch.tensor(value, device=DEVICE) for value in scalars(name, 14.3))).backward()
    assert pair[frozen].grad is None
    assert torch.equal(pair[1 - frozen].grad, right[2 - frozen])


def extra_memory(name: str, pairs: int, dim: int, dtype: torch.dtype = torch.bfloat16) -> int:
    """Bytes at the peak of forward and backward, above features and scalars; the gradients count."""
    leaves = [side.to(dtype).requires_grad_() for side in features("random", pairs, dim)]
    values = [torch.tensor(value, device=DEVICE, requires_grad=True) for value in scalars(name, 14.3)]
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    getattr(kernels, name)(*leaves, *values).backward()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


@only_cuda
@pytest.mark.parametrize("name", LOSSES)
def test_memory_is_linear_in_the_batch(backend, name) -> None:
    extra_memory(name, 512, 512)  # cuBLAS takes its workspace
    small, middle, large = (extra_memory(name, pairs, 512) for pairs in (8192, 16384, 32768))
    # A constant and a line: what is above them would quadruple.
    assert large - middle <= 2.1 * max(middle - small, 0) + GIB // 32, (small, middle, large)
    assert large <= (0.7 if backend == "triton" else 1.0) * GIB


@only_cuda
@pytest.mark.parametrize(("pairs", "gib"), [(65536, 1.1), (131072, 2.0)])
@pytest.mark.parametrize("name", LOSSES)
def test_memory_of_large_batches(triton, name, pairs, gib) -> None:
    extra_memory(name, 512, 1024)
    assert extra_memory(name, pairs, 1024) <= gib * GIB


@only_cuda
@pytest.mark.parametrize("name", LOSSES)
def test_offsets_beyond_two_to_the_31(triton, name) -> None:
    from clip_core.kernels import blocks

    pairs = 50_000  # 2.5e9 logits
    x, y = features("random", pairs, 32)
    found = run(getattr(kernels, name), x, y, *scalars(name, 14.3))
    exact = [side.double() for side in (x, y)]
    scale, bias = (torch.tensor(value, device=DEVICE, dtype=torch.float64) for value in (14.3, -10.0))
    if name == "clip_loss":
        own = torch.linalg.vecdot(*exact)
        losses = [blocks.log_sum_exp(side) for side in blocks.contrastive_statistics(*exact, own, scale)]
        loss, count = losses[0].mean() / 2 + losses[1].mean() / 2, 2 * pairs
        right = blocks.contrastive_gradients(*exact, own, scale, *losses)
    else:
        loss, right = blocks.sigmoid_loss(*exact, scale, bias)
        loss, count = loss / pairs, pairs
    assert error(found.loss, loss) <= 2**-18 * loss
    assert error(found.images, right.rows / count) <= 2**-14 * right.rows.norm() / count
    assert error(found.texts, right.columns / count) <= 2**-14 * right.columns.norm() / count
    assert error(found.scale, right.scale / count) <= 2**-14 * (right.scale / count).abs() + 1e-6


@only_cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", LOSSES)
def test_captured_in_a_graph_and_replayed(backend, name, dtype) -> None:
    x, y = (side.to(dtype).requires_grad_() for side in features("random", 700, 512))
    values = [torch.tensor(value, device=DEVICE, requires_grad=True) for value in scalars(name, 14.3)]
    leaves = (x, y, *values)

    def step() -> tuple[Tensor, ...]:
        loss = getattr(kernels, name)(*leaves)
        return loss, *torch.autograd.grad(loss, leaves)

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    fresh = features("trained", 700, 512, seed=1)
    with torch.no_grad():
        for leaf, value in zip((x, y), fresh, strict=True):
            leaf.copy_(value)
        values[0].fill_(60.0)
    graph.replay()
    for ours, theirs in zip(captured, step(), strict=True):
        torch.testing.assert_close(ours, theirs)


@only_cuda
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_compiled_without_a_break(triton, name, autocast) -> None:
    x, y = (side.requires_grad_() for side in features("random", 700, 512))
    values = [torch.tensor(value, device=DEVICE, requires_grad=True) for value in scalars(name, 14.3)]
    leaves = (x, y, *values)

    def step(*given: Tensor) -> Tensor:
        with torch.autocast("cuda", torch.bfloat16, enabled=autocast):
            return 2 * getattr(kernels, name)(*given)

    results = []
    for function in (step, torch.compile(step, fullgraph=True)):
        loss = function(*leaves)
        results.append((loss, *torch.autograd.grad(loss, leaves)))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


@only_cuda
@pytest.mark.parametrize("name", LOSSES)
def test_nothing_waits_for_the_device(triton, name) -> None:
    x, y = features("random", 700, 512)
    values = [torch.tensor(value, device=DEVICE, requires_grad=True) for value in scalars(name, 14.3)]
    leaves = [side.bfloat16().requires_grad_() for side in (x, y)]
    getattr(kernels, name)(*leaves, *values).backward()  # compiles, which may
    torch.cuda.set_sync_debug_mode("error")
    try:
        getattr(kernels, name)(*leaves, *values).backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@only_cuda
@pytest.mark.parametrize("name", LOSSES)
def test_another_stream(triton, name) -> None:
    x, y = (side.bfloat16() for side in features("random", 3000, 512))
    right = run(getattr(kernels, name), x, y, *scalars(name, 14.3))
    late = torch.zeros_like(x), torch.zeros_like(y)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(200_000_000)  # what runs on another stream would read zeros
        for empty, value in zip(late, (x, y), strict=True):
            empty.copy_(value)
        found = run(getattr(kernels, name), *late, *scalars(name, 14.3))
    torch.cuda.synchronize()
    for ours, theirs in zip(found, right, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", LOSSES)
def test_small_run(triton, name, dtype) -> None:
    """What compute-sanitizer looks at (tools/gpu.py sanitize): odd sizes, both directions."""
    compare(name, *(side.to(dtype) for side in features("random", 133 if CUDA else 19, 40)), 14.3)
