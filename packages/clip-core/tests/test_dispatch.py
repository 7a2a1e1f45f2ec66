"""What runs where (clip_core.kernels.dispatch): by measurement on GPUs that are not here, by force, and said once."""

from __future__ import annotations

import importlib.metadata
import itertools
import logging
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from clip_core.errors import ConfigError
from clip_core.kernels import attention, dispatch, measured, quick_gelu, use_backend
from clip_core.kernels.measured import Measured, length_class

WON = Measured("sm_90", "attention", "bfloat16", True, 64, 50, False, 1.8, "NVIDIA H200", "2026-01-02")
PACKED = WON._replace(operation="packed_attention", length=80, causal=True)
GELU = WON._replace(operation="quick_gelu", channels=0, length=0)
LOST = WON._replace(length=77, ratio=1.14)
BARELY = WON._replace(length=64, ratio=1.15)


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def clear() -> None:
        dispatch._read.cache_clear()
        dispatch._told.clear()
        dispatch._why_no_triton_here.cache_clear()

    clear()
    yield
    monkeypatch.undo()
    clear()


@pytest.fixture
def h200(monkeypatch: pytest.MonkeyPatch) -> None:
    """An H200 that somebody measured, as far as dispatch asks; tensors on it have no values."""
    monkeypatch.setattr(dispatch, "_why_no_triton_here", lambda: None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    monkeypatch.setattr(measured, "MEASURED", (WON, PACKED, GELU, LOST, BARELY))


def on_cuda(*shape: int, dtype: torch.dtype = torch.bfloat16, training: bool = True) -> Tensor:
    with FakeTensorMode():
        return torch.empty(shape, dtype=dtype, device="cuda").requires_grad_(training)


def test_a_cpu_runs_torch() -> None:
    assert dispatch.attention_backend("attention", torch.zeros(1, 50, 3, 12, 64), 50, causal=False) == "torch"
    assert dispatch.pointwise_backend(torch.zeros(3)) == "torch"
    assert dispatch.loss_backend(torch.zeros(3, 8)) == "torch"


@pytest.mark.usefixtures("h200")
def test_a_program_runs_where_it_was_measured_to_win() -> None:
    packed = on_cuda(4, 50, 3, 12, 64)
    assert dispatch.attention_backend("attention", packed, 50, causal=False) == "triton"
    assert dispatch.attention_backend("attention", on_cuda(4, 64, 3, 12, 64), 64, causal=False) == "triton"
    assert dispatch.attention_backend("packed_attention", on_cuda(99, 3, 8, 64), 70, causal=True) == "triton"
    assert dispatch.pointwise_backend(packed) == "triton"


@pytest.mark.usefixtures("h200")
def test_nothing_else_runs_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = on_cuda(4, 50, 3, 12, 64)
    assert dispatch.attention_backend("attention", on_cuda(4, 77, 3, 12, 64), 77, causal=False) == "torch"  # 1.14
    assert dispatch.attention_backend("attention", on_cuda(4, 49, 3, 12, 64), 49, causal=False) == "torch"
    assert dispatch.attention_backend("attention", packed, 50, causal=True) == "torch"
    assert dispatch.attention_backend("attention", on_cuda(4, 50, 3, 12, 72), 50, causal=False) == "torch"
    for other in (on_cuda(4, 50, 3, 12, 64, dtype=torch.float16), on_cuda(4, 50, 3, 12, 64, training=False)):
        assert dispatch.attention_backend("attention", other, 50, causal=False) == "torch"
        assert dispatch.pointwise_backend(other) == "torch"
    with torch.no_grad():
        assert dispatch.attention_backend("attention", packed, 50, causal=False) == "torch"
    for longest in (64, 81, 200):
        assert dispatch.attention_backend("packed_attention", on_cuda(99, 3, 8, 64), longest, causal=True) == "torch"
    with use_backend("torch"):
        assert dispatch.attention_backend("attention", packed, 50, causal=False) == "torch"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    dispatch._read.cache_clear()
    assert dispatch.attention_backend("attention", packed, 50, causal=False) == "torch"


@pytest.mark.usefixtures("h200")
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_what_is_said_beforehand_is_what_is_chosen(dtype: torch.dtype, training: bool) -> None:
    for length, channels, causal in itertools.product((50, 64, 77, 80, 257), (64, 72), (False, True)):
        for operation, shape in (("attention", (2, length)), ("packed_attention", (99,))):
            packed = on_cuda(*shape, 3, 8, channels, dtype=dtype, training=training)
            said = dispatch.choose(
                "sm_90", operation, dtype, training=training, channels=channels, longest=length, causal=causal
            )
            assert dispatch.attention_backend(operation, packed, length, causal=causal) == said.backend
    x = on_cuda(3, dtype=dtype, training=training)
    assert dispatch.pointwise_backend(x) == dispatch.choose("sm_90", "quick_gelu", dtype, training=training).backend
    assert dispatch.loss_backend(x) == dispatch.choose_loss("sm_90", dtype).backend == "triton"
    double = on_cuda(3, dtype=torch.float64)
    assert dispatch.loss_backend(double) == dispatch.choose_loss("sm_90", torch.float64).backend == "torch"


def test_reasons_name_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured, "MEASURED", (WON, LOST))

    def reason(architecture: str, length: int, dtype: torch.dtype = torch.bfloat16, channels: int = 64) -> str:
        return dispatch.choose(
            architecture, "attention", dtype, training=True, channels=channels, longest=length
        ).reason

    assert reason("sm_90", 50) == "1.80 times as fast as torch (NVIDIA H200, 2026-01-02)"
    assert reason("sm_90", 77).startswith("the program is 1.14 times as fast")
    assert "1.15" in reason("sm_90", 77)
    assert reason("sm_100", 50) == "not measured on sm_100"
    assert reason("sm_75", 50) == "sm_75 is older than sm_80"
    assert "not for mps" in reason("mps", 50)
    assert "not of 257" in reason("sm_90", 257)
    assert "float64" in reason("sm_90", 50, torch.float64)
    for channels in (8, 60, 136):
        assert f"not {channels}" in reason("sm_90", 50, channels=channels)


@pytest.mark.usefixtures("h200")
def test_a_shape_that_was_not_measured_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="clip_core")
    for _ in range(3):
        dispatch.attention_backend("attention", on_cuda(4, 50, 3, 12, 64), 50, causal=False)  # measured
        dispatch.attention_backend("attention", on_cuda(4, 49, 3, 12, 64), 49, causal=False)
        dispatch.attention_backend("packed_attention", on_cuda(9, 3, 12, 64), 20, causal=True)
        dispatch.attention_backend("packed_attention", on_cuda(9, 3, 12, 64), 30, causal=True)  # the same class
        dispatch.pointwise_backend(on_cuda(9, training=False))
    assert [record.getMessage() for record in caplog.records] == [
        "attention of 49 tokens with 64 channels in bfloat16, with gradients runs in torch: "
        "it is not measured on a NVIDIA H200",
        "causal packed_attention of up to 32 tokens with 64 channels in bfloat16, with gradients runs in torch: "
        "it is not measured on a NVIDIA H200",
        "quick_gelu in bfloat16 runs in torch: it is not measured on a NVIDIA H200",
    ]


@pytest.mark.parametrize(
    ("version", "capability", "hip", "reason"),
    [
        (None, (9, 0), None, "triton is not installed"),
        ("3.5.1", (9, 0), None, "triton 3.5.1 is older than 3.6"),
        ("3.10.0", (7, 5), None, "compute capability 7.5 is below 8.0"),
        ("3.10.0", (9, 0), "6.2", "the programs are written for NVIDIA's devices"),
        ("3.10.0+git", (9, 0), None, None),
    ],
)
def test_why_there_is_no_triton(monkeypatch, version, capability, hip, reason) -> None:
    monkeypatch.setattr(dispatch.importlib.util, "find_spec", lambda name: None if version is None else object())
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.version, "hip", hip)
    assert dispatch.why_no_triton(torch.device("cuda", 0)) == reason
    packed = on_cuda(4, 8)
    assert dispatch.loss_backend(packed) == ("triton" if reason is None else "torch")


def test_other_devices_have_no_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "_why_no_triton_here", lambda: None)
    assert dispatch.why_no_triton(torch.device("mps")) == "there are no programs for 'mps'"


def test_a_backend_can_be_forced_and_nested() -> None:
    with use_backend("torch"):
        with use_backend("triton"):
            assert dispatch.forced_backend() == "triton"
        assert dispatch.forced_backend() == "torch"
    assert dispatch.forced_backend() is None
    with pytest.raises(ConfigError, match=r"backend is 'cuda'; allowed: 'triton' or 'torch'"), use_backend("cuda"):  # type: ignore[arg-type]
        pass


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: attention(torch.zeros(1, 129, 3, 2, 64), causal=True), "up to 128 tokens, not of 129"),
        (lambda: attention(torch.zeros(1, 9, 3, 2, 60), causal=True), "multiples of 8 from 16 to 128 .* not 60"),
        (lambda: attention(torch.zeros(1, 9, 3, 2, 64).double(), causal=True), "not for float64"),
        (lambda: quick_gelu(torch.zeros(3).double()), "not for float64"),
        (lambda: dispatch.loss_backend(torch.zeros(3, 4).double()), "float64"),
    ],
)
def test_forcing_triton_names_what_there_is_no_program_for(call, message: str) -> None:
    with use_backend("triton"), pytest.raises(ConfigError, match=message):
        call()
    call()


def test_forcing_triton_on_a_cpu_says_how_its_interpreter_is_chosen() -> None:
    pytest.importorskip("triton", minversion="3.6")
    with (
        use_backend("triton"),
        pytest.raises(ConfigError, match="TRITON_INTERPRET=1 is not set"),
    ):
        attention(torch.zeros(1, 9, 3, 2, 64), causal=True)


def test_classes_of_lengths() -> None:
    assert [length_class(longest) for longest in (0, 16, 17, 64, 65, 80, 81, 128, 129)] == [
        *(16, 16, 32, 64, 80, 80, 128, 128, 129),
    ]


def test_the_compiler_asks_while_it_traces() -> None:
    # What dispatch writes by hand so that `import clip_core` does not import the compiler.
    marked = torch.compiler.assume_constant_result(lambda: None)
    for function in (dispatch.why_no_triton, dispatch._known):
        assert vars(marked).items() <= vars(function).items()


@pytest.mark.skipif(torch.__version__.startswith("2.6."), reason="torch 2.6 aborts for want of a real CUDA device")
@pytest.mark.usefixtures("h200")
@pytest.mark.parametrize("dynamic", [False, True])
def test_a_choice_is_made_inside_a_compiled_graph(dynamic: bool) -> None:
    def step(packed: Tensor) -> Tensor:
        backend = dispatch.attention_backend("attention", packed, packed.shape[1], causal=False)
        return packed + 1 if backend == "triton" else packed.sum()

    torch.compiler.reset()
    compiled = torch.compile(step, fullgraph=True, dynamic=dynamic, backend="eager")
    with FakeTensorMode():
        for length, found in ((50, 5), (49, 0), (77, 0), (64, 5), (48, 0)):
            packed = torch.empty(4, length, 3, 12, 64, dtype=torch.bfloat16, device="cuda", requires_grad=True)
            assert compiled(packed).ndim == found
