"""The contrastive losses as operations of torch: what they take and refuse, compile to and keep."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from clip_core.errors import ConfigError
from clip_core.kernels import blocks, clip_loss, siglip_loss
from loss_cases import Loss, pairs, run

both = pytest.mark.parametrize("loss", [clip_loss, siglip_loss])


@both
def test_the_same_input_gives_the_same_bits(loss: Loss) -> None:
    x, y = pairs("random", 900)
    for first, second in zip(*(run(loss, x, y, 50.0, -5.0, torch.float32) for _ in range(2)), strict=True):
        assert torch.equal(first, second)


@both
@pytest.mark.parametrize("frozen", [{0}, {1}, {0, 1}, {2, 3}, {0, 2, 3}])
def test_what_is_frozen_has_no_gradient_and_changes_no_other(loss: Loss, frozen: set[int]) -> None:
    x, y = pairs("random", 20)
    full = run(loss, x, y, 20.0, -3.0, torch.float64)[1:]
    values = [x, y, torch.tensor(20.0).double(), torch.tensor(-3.0).double()]
    inputs = [value.clone().requires_grad_(index not in frozen) for index, value in enumerate(values)]
    loss(*inputs).backward()
    for index, (value, expected) in enumerate(zip(inputs, full, strict=True)):
        assert (value.grad is None) if index in frozen else torch.equal(value.grad, expected)


@both
def test_upstream_gradients_of_a_scaler_and_accumulation(loss: Loss) -> None:
    x, y = pairs("random", 20)
    single = run(loss, x, y, 20.0, -3.0, torch.float32)[1]
    image = x.float().requires_grad_()
    for _ in range(2):
        (loss(image, y.float(), torch.tensor(20.0), torch.tensor(-3.0)) * 2.0**16).backward()
    torch.testing.assert_close(image.grad.double() / 2**17, single, rtol=1e-6, atol=1e-9)


@both
def test_nothing_is_kept_without_gradients(loss: Loss) -> None:
    x, y = pairs("random", 20)
    image = x.requires_grad_()
    with torch.no_grad():
        assert not loss(image, y, torch.tensor(20.0), torch.tensor(-3.0)).requires_grad


@both
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_and_autocast_do_not_blur_the_logits(loss: Loss, dtype: torch.dtype) -> None:
    x, y = (side.to(dtype) for side in pairs("random", 64))
    scale, bias = torch.tensor(100.0), torch.tensor(-10.0)
    exact = loss(x.float(), y.float(), scale, bias)
    image = x.clone().requires_grad_()
    low = loss(image, y, scale, bias)
    low.backward()
    assert low.dtype == torch.float32
    assert image.grad.dtype == dtype
    assert torch.equal(low, exact)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(loss(x.float(), y.float(), scale, bias), exact)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch's checker looks at it
@both
@pytest.mark.parametrize("frozen", [(), (0,), (1, 2)])
def test_the_operators_keep_torchs_rules(loss: Loss, frozen: tuple[int, ...]) -> None:
    x, y = (side.float() for side in pairs("random", 12))
    inputs: list[Any] = [x, y, torch.tensor(9.0), torch.tensor(-2.0)]
    for index, value in enumerate(inputs):
        value.requires_grad_(index not in frozen)
    if loss is clip_loss:
        torch.library.opcheck(torch.ops.clip_core.clip_loss.default, (*inputs[:3], "torch", torch.float32))
        losses = [torch.rand(12, dtype=torch.float64) for _ in range(2)]
        given = torch.tensor(2.0), x.detach(), y.detach(), inputs[2].detach(), *losses, torch.rand(12)
        flags = (0 not in frozen, 1 not in frozen, "torch", torch.float32)
        torch.library.opcheck(torch.ops.clip_core.clip_loss_backward.default, (*given, *flags))
    else:
        flags = (True, inputs[0].requires_grad, inputs[1].requires_grad, "torch", torch.float32)
        torch.library.opcheck(torch.ops.clip_core.siglip_loss.default, (*inputs, *flags))
        for dtype in (torch.float32, torch.bfloat16):
            torch.library.opcheck(
                torch.ops.clip_core.siglip_loss_backward.default, (torch.tensor(2.0), x.detach(), dtype)
            )


@both
def test_both_compile_into_one_graph(loss: Loss) -> None:
    x, y = pairs("random", 12)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    for found, expected in zip(
        run(compiled, x, y, 9.0, -2.0, torch.float32), run(loss, x, y, 9.0, -2.0, torch.float32), strict=True
    ):
        assert torch.equal(found, expected)


def test_the_bias_cancels_and_has_a_gradient_of_zero() -> None:
    x, y = pairs("random", 5)
    found = run(clip_loss, x, y, 10.0, -7.0, torch.float32)
    assert torch.equal(found[0], run(clip_loss, x, y, 10.0, None, torch.float32)[0])
    assert found[4] == 0


@both
@pytest.mark.parametrize("shapes", [((3, 4), (2, 4)), ((3, 4), (3, 5)), ((0, 4),) * 2, ((3, 0),) * 2, ((4,), (4,))])
def test_sides_that_do_not_pair_are_refused(loss: Loss, shapes: Any) -> None:
    with pytest.raises(ConfigError, match="allowed: two of one shape"):
        loss(torch.zeros(shapes[0]), torch.zeros(shapes[1]), torch.tensor(1.0), torch.tensor(0.0))


@both
def test_one_graph_serves_every_batch(loss: Loss) -> None:
    traced = 0

    def backend(module: Any, _: Any) -> Any:
        nonlocal traced
        traced += 1
        return module

    compiled = torch.compile(loss, fullgraph=True, backend=backend, dynamic=True)
    for batch in (12, 13, 30):
        x, y = pairs("random", batch)
        found = run(compiled, x, y, 9.0, -2.0, torch.float32)
        for value, expected in zip(found, run(loss, x, y, 9.0, -2.0, torch.float32), strict=True):
            assert torch.equal(value, expected)
    assert traced == 1


LAYOUTS = {
    "columns of a wider matrix": lambda x: torch.cat([x, x], 1)[:, : x.shape[1]],
    "transposed": lambda x: x.T.contiguous().T,
    "every second row": lambda x: x.repeat_interleave(2, 0)[::2],
    "not aligned": lambda x: torch.cat([x.new_zeros(1), x.flatten()])[1:].view(x.shape),
}


@both
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_strides_of_features_do_not_matter(loss: Loss, layout: str) -> None:
    x, y = (side.float() for side in pairs("trained", 20))
    expected = run(loss, x, y, 20.0, -3.0, torch.float32)[:3]
    given = [LAYOUTS[layout](side).detach().requires_grad_() for side in (x, y)]
    value = loss(*given, torch.tensor(20.0), torch.tensor(-3.0))
    value.backward()
    for found, exact in zip((value, *(side.grad for side in given)), expected, strict=True):
        torch.testing.assert_close(found.detach().double(), exact, rtol=1e-5, atol=1e-7)


@both
def test_one_row_for_all_pairs(loss: Loss) -> None:
    x, y = (side.float() for side in pairs("random", 20))
    row = x[:1].clone().requires_grad_()
    loss(row.expand(20, -1), y, torch.tensor(20.0), torch.tensor(-3.0)).backward()
    expected = run(loss, x[:1].expand(20, -1), y, 20.0, -3.0, torch.float32)[1].sum(0)
    torch.testing.assert_close(row.grad[0].double(), expected, rtol=1e-5, atol=1e-6)


@both
@pytest.mark.parametrize("upstream", [0.0, 0.5, 65536.0])
def test_gradients_follow_the_upstream_gradient(loss: Loss, upstream: float) -> None:
    x, y = pairs("random", 20)
    plain = run(loss, x, y, 20.0, -3.0, torch.float32)[1:]
    values = [value.float().requires_grad_() for value in (x, y, torch.tensor(20.0), torch.tensor(-3.0))]
    loss(*values).expand(3).backward(torch.tensor(upstream / 3).expand(3))  # without strides, as a sum sends it
    for value, expected in zip(values, plain, strict=True):
        torch.testing.assert_close(value.grad.double(), upstream * expected, rtol=1e-5, atol=1e-6)


@both
def test_a_scale_may_be_a_number_or_a_tensor_of_one_element(loss: Loss) -> None:
    x, y = (side.float() for side in pairs("random", 20))
    expected = run(loss, x, y, 20.0, -3.0, torch.float32)
    assert torch.equal(loss(x, y, 20.0, -3.0).double(), expected[0])
    scale, bias = torch.tensor([20.0], requires_grad=True), torch.tensor([[-3.0]], requires_grad=True)
    value = loss(x, y, scale, bias)
    value.backward()
    assert value.shape == ()
    assert (scale.grad.shape, bias.grad.shape) == ((1,), (1, 1))
    assert scale.grad.double().item() == expected[3].item()
    with pytest.raises(ConfigError, match=r"logit_scale of shape \(20,\)"):
        loss(x, y, torch.ones(20))
    with pytest.raises(ConfigError, match=r"logit_bias of shape \(2,\)"):
        loss(x, y, 1.0, torch.ones(2))


@both
def test_two_dtypes_count_as_the_wider_one(loss: Loss) -> None:
    x, y = pairs("random", 20)
    image, text = x.bfloat16().requires_grad_(), y.float().requires_grad_()
    value = loss(image, text, 20.0, -3.0)
    value.backward()
    assert (value.dtype, image.grad.dtype, text.grad.dtype) == (torch.float32, torch.bfloat16, torch.float32)
    assert torch.equal(value, loss(image.float(), text, 20.0, -3.0))
    assert loss(x.float(), y, 20.0, -3.0).dtype == torch.float64


@both
@pytest.mark.parametrize("bad", [torch.inf, -torch.inf, torch.nan])
@pytest.mark.parametrize("tile", [8, 768])
def test_what_is_not_finite_is_not_hidden(loss: Loss, bad: float, tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "TILE", tile)
    x, y = pairs("random", 20)
    x[11, 3] = bad
    value, dx, dy, *_ = run(loss, x, y, 20.0, -3.0, torch.float32)
    assert not value.isfinite()
    # The sigmoid of an infinite logit is 0 or 1.
    assert dx[11].isfinite().all() == (loss is siglip_loss and bad in (torch.inf, -torch.inf))
    assert not dy.isfinite().all()


@both
def test_a_second_derivative_is_refused(loss: Loss) -> None:
    x, y = (side.float() for side in pairs("random", 6))
    image = x.requires_grad_()
    (gradient,) = torch.autograd.grad(loss(image, y, 20.0, -3.0), image, create_graph=True)
    with pytest.raises(ConfigError, match="allowed: first derivatives"):
        gradient.square().sum().backward()


def _tangent(loss: Loss, x: Tensor, y: Tensor) -> Tensor:
    with forward_ad.dual_level():
        return loss(forward_ad.make_dual(x, y), y, 20.0, -3.0)


OTHERS = {
    "jvp": lambda loss, x, y: torch.func.jvp(lambda x: loss(x, y, 20.0, -3.0), (x,), (y,)),
    "jvp of the scale": lambda loss, x, y: torch.func.jvp(lambda s: loss(x, y, s, -3.0), (x[0, 0],), (y[0, 0],)),
    "dual tensors": _tangent,
    "grad": lambda loss, x, y: torch.func.grad(lambda x: loss(x, y, 20.0, -3.0))(x),
    "hessian": lambda loss, x, y: torch.func.hessian(lambda x: loss(x, y, 20.0, -3.0))(x),
    "vmap": lambda loss, x, y: torch.func.vmap(lambda x: loss(x, y, 20.0, -3.0))(x[None]),
}


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # torch's forward-mode AD calls it
@both
@pytest.mark.parametrize("way", OTHERS)
def test_other_derivatives_are_refused_and_never_zero(loss: Loss, way: str) -> None:
    x, y = (side.float() for side in pairs("random", 6))
    with pytest.raises(
        ConfigError, match=rf"{loss.__name__} was called (inside|with).*; allowed: backward\(\).*matrix"
    ):
        OTHERS[way](loss, x, y)


@both
@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda x: x.long(), "features of torch.int64; allowed: float32, bfloat16, float16, float64"),
        (lambda x: x.bool(), "torch.bool"),
        (lambda x: x.cfloat(), "torch.complex64"),
        (lambda x: x.to(torch.float8_e4m3fn), "torch.float8_e4m3fn"),
        (lambda x: x.numpy(), "features as ndarray; allowed: a dense tensor"),
        (lambda x: x.tolist(), "features as list"),
        (lambda x: None, r"features as NoneType; .*model\(images, tokens\)"),
        (lambda x: x.to_sparse(), "features of torch.sparse_coo"),
    ],
)
def test_features_of_another_kind_are_refused(loss: Loss, given: Any, message: str) -> None:
    x = torch.ones(3, 4)
    for sides, side in (((given(x), x), "image"), ((x, given(x)), "text")):
        with pytest.raises(ConfigError, match=message) as raised:
            loss(*sides, 20.0)
        assert side in str(raised.value) or "features of torch" in str(raised.value)


@both
@pytest.mark.parametrize("bad", [None, "20", 1j, [20.0], np.ones(1)], ids=str)
def test_a_scale_that_is_no_number_is_refused(loss: Loss, bad: Any) -> None:
    x = torch.ones(3, 4)
    with pytest.raises(ConfigError, match=r"logit_scale .*; allowed: a number, or a tensor of one"):
        loss(x, x, bad)
    with pytest.raises(ConfigError, match=r"logit_scale of torch.complex64; allowed: a number, or a real"):
        loss(x, x, torch.ones((), dtype=torch.complex64))
    assert torch.equal(loss(x, x, np.float32(2)), loss(x, x, 2))


@both
def test_rows_against_more_columns_are_elsewhere(loss: Loss) -> None:
    with pytest.raises(ConfigError, match=r"clip_train.loss; .*clip_core.kernels.parts"):
        loss(torch.ones(2, 4), torch.ones(6, 4), 1.0)


@both
def test_devices_must_agree(loss: Loss) -> None:
    with pytest.raises(ConfigError, match="image features on cpu and text features on meta"):
        loss(torch.zeros(2, 4), torch.zeros(2, 4, device="meta"), 1.0)


MEMORY = """
import resource, sys, torch
from clip_core import kernels
loss, batch = getattr(kernels, sys.argv[1]), 6144
def step(count):
    x, y = (torch.nn.functional.normalize(torch.randn(count, 32)).requires_grad_() for _ in range(2))
    loss(x, y, torch.tensor(10.0), torch.tensor(-10.0)).backward()
step(1500)  # tiles, threads and code are there now
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
step(batch)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / (4 * batch**2))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the unit of ru_maxrss is that of Linux")
@pytest.mark.parametrize("loss", ["clip_loss", "siglip_loss"])
def test_the_matrix_of_logits_exists_nowhere(loss: str) -> None:
    done = subprocess.run([sys.executable, "-c", MEMORY, loss], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 0.2  # of one such matrix; a plain loss holds four
