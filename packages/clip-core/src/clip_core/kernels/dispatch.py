"""Which implementation an operation of this room runs with, and why: Triton's programs, or plain torch.

A choice is made where a public function is called, from shapes, dtypes and the device alone, and is handed to the
backward pass. No environment variable has a say; `use_backend` does. What is not measured on a kind of device is not
chosen there by itself, and the log says so once, at level INFO. The losses are the exception: their programs are there
to save memory, and run wherever they can.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import importlib.util
import logging
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.autograd import forward_ad

from clip_core.errors import ConfigError
from clip_core.kernels import measured
from clip_core.kernels.measured import Operation

__all__ = [
    "LEAST_RATIO",
    "MOST_TOKENS",
    "Backend",
    "Choice",
    "attention_backend",
    "choose",
    "choose_loss",
    "forced",
    "forced_backend",
    "loss_backend",
    "no_program",
    "pointwise_backend",
    "refuse_transforms",
    "use_backend",
    "why_no_triton",
]

log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

Backend = Literal["triton", "torch"]

LEAST_RATIO = 1.15
"""A program is chosen where it was measured to be so many times as fast as torch."""
MOST_TOKENS = 128
"""The longest sequence that the programs for attention take."""
_DTYPES = (torch.bfloat16, torch.float16, torch.float32)
_OLDEST_TRITON = (3, 6)
_OLDEST_CAPABILITY = (8, 0)
_forced: Backend | None = None
_told: set[str] = set()


class Choice(NamedTuple):
    """What an operation runs with, and the reason as the end of a sentence."""

    backend: Backend
    reason: str


@contextlib.contextmanager
def use_backend(backend: Backend) -> Iterator[None]:
    """Run every operation of `clip_core.kernels` that is called inside with `backend`, in all threads.

    Raises:
        ConfigError: another name; or, where an operation is called, "triton" for what it has no program for.
    """
    if backend not in ("triton", "torch"):
        raise ConfigError(f"backend is {backend!r}; allowed: 'triton' or 'torch'.")
    global _forced
    before, _forced = _forced, backend
    try:
        yield
    finally:
        _forced = before


def forced_backend() -> Backend | None:
    """What `use_backend` says, or None outside of it."""
    return _forced


def _constant(function: Callable[P, R]) -> Callable[P, R]:
    """Have torch.compile ask `function` while it traces, since it cannot look through it, and keep the answer.

    It is `torch.compiler.assume_constant_result`, which would import the compiler, a second's work.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


@_constant
def why_no_triton(device: torch.device) -> str | None:
    """Why Triton's programs cannot run on tensors of `device`, as the end of a sentence, or None where they can.

    On a CPU they run in Triton's interpreter, which must have been chosen before Triton was imported.
    """
    reason = _why_no_triton_here()
    if reason is not None:
        return reason
    if device.type == "cuda":
        if torch.version.hip is not None:
            return "the programs are written for NVIDIA's devices"
        capability = torch.cuda.get_device_capability(device)
        if capability < _OLDEST_CAPABILITY:
            return f"compute capability {capability[0]}.{capability[1]} is below 8.0"
        return None
    if device.type == "cpu":
        import triton

        return None if triton.knobs.runtime.interpret else "the tensors are on a CPU and TRITON_INTERPRET=1 is not set"
    return f"there are no programs for {device.type!r}"


@functools.cache
def _why_no_triton_here() -> str | None:
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    version = importlib.metadata.version("triton")
    if tuple(int(part) for part in version.split(".")[:2]) < _OLDEST_TRITON:
        return f"triton {version} is older than {'.'.join(map(str, _OLDEST_TRITON))}"
    return None


def refuse_transforms(name: str, *tensors: Tensor, instead: str) -> None:
    """Raise `ConfigError` where torch.func or forward-mode AD wants derivatives of an operation by them.

    An operation of this room has a formula for backward alone: torch would take its tangents for 0, or say something
    about an `autograd.Function`. torch.compile never asks; it traces such an operation as one.

    Args:
        name: of the operation, for the reader.
        tensors: what it was given.
        instead: what to do, the end of the message.
    """
    if torch.compiler.is_compiling():
        return
    inside = torch._C._functorch.peek_interpreter_stack() is not None
    unpack: Callable[[Tensor], Any] = forward_ad.unpack_dual
    if inside or any(unpack(tensor).tangent is not None for tensor in tensors):
        what = "inside a transform of torch.func" if inside else "with a tangent of forward-mode AD"
        raise ConfigError(f"{name} was called {what}; allowed: backward() and torch.autograd.grad. {instead}")


def loss_backend(features: Tensor) -> Backend:
    """For the contrastive losses of `features`: on a CUDA device Triton where it can run, else torch.

    Raises `ConfigError` where `use_backend` asks for Triton and it cannot run.
    """
    if _forced == "torch" or (_forced is None and features.device.type != "cuda"):
        return "torch"
    reason = _no_loss_program(features.dtype) or why_no_triton(features.device)
    if reason is not None and _forced == "triton":
        raise ConfigError(f"use_backend('triton'): {reason}; allowed here: 'torch'.")
    return "torch" if reason is not None else "triton"


def attention_backend(operation: Operation, packed: Tensor, longest: int, *, causal: bool) -> Backend:
    """For "attention" or "packed_attention" over sequences of up to `longest` tokens, whose inputs are `packed`.

    On a CUDA device Triton where that shape was measured to win there, else torch. Raises `ConfigError` where
    `use_backend` asks for Triton and it has no program for this or cannot run.
    """
    if _forced == "torch" or (_forced is None and packed.device.type != "cuda"):
        return "torch"
    channels, dtype = packed.shape[-1], packed.dtype
    if _forced == "triton":
        return _insist(no_program(operation, dtype, channels, longest), packed.device)
    training = torch.is_grad_enabled() and packed.requires_grad
    length = longest if operation == "attention" else measured.length_class(longest)
    # Compared one by one, since a number of tokens or channels may be a symbol while torch.compile traces.
    for known_channels, known_length, backend in _known(packed.device, operation, dtype, training, causal):
        if channels == known_channels and length == known_length:
            return backend
    if not torch.compiler.is_compiling():
        shape = f"of {longest} tokens" if operation == "attention" else f"of up to {length} tokens"
        what = f"{'causal ' if causal else ''}{operation} {shape} with {channels} channels in {_name(dtype)}"
        _tell(f"{what}{', with gradients' if training else ''}", packed.device)
    return "torch"


def pointwise_backend(x: Tensor) -> Backend:
    """For QuickGELU of `x`; the rule and the errors are those of `attention_backend`."""
    if _forced == "torch" or (_forced is None and x.device.type != "cuda"):
        return "torch"
    if _forced == "triton":
        return _insist(no_program("quick_gelu", x.dtype), x.device)
    training = torch.is_grad_enabled() and x.requires_grad
    for _, _, backend in _known(x.device, "quick_gelu", x.dtype, training, False):
        return backend
    if not torch.compiler.is_compiling():
        _tell(f"quick_gelu in {_name(x.dtype)}{', with gradients' if training else ''}", x.device)
    return "torch"


def no_program(operation: Operation, dtype: torch.dtype, channels: int = 0, longest: int = 0) -> str | None:
    """Why there is no program for an operation at this shape, as the end of a sentence, or None where there is one."""
    if dtype not in _DTYPES:
        return f"there are programs for bfloat16, float16 and float32, not for {_name(dtype)}"
    if operation == "quick_gelu":
        return None
    if channels % 8 or not 16 <= channels <= 128:
        return f"the programs take multiples of 8 from 16 to 128 as channels of a head, not {channels}"
    if longest > MOST_TOKENS:
        return f"the programs take sequences of up to {MOST_TOKENS} tokens, not of {longest}"
    return None


def choose(
    architecture: str,
    operation: Operation,
    dtype: torch.dtype,
    *,
    training: bool,
    channels: int = 0,
    longest: int = 0,
    causal: bool = False,
) -> Choice:
    """What an operation runs with on `architecture`, "sm_90" for example, or "cpu", where Triton is installed."""
    reason = no_program(operation, dtype, channels, longest)
    if _forced is not None:
        return forced(_forced, reason or _unable(architecture))
    reason = _no_device(architecture) or reason
    if reason is not None:
        return Choice("torch", reason)
    length = measured.length_class(longest) if operation == "packed_attention" else longest
    for row in measured.MEASURED:
        if row[:7] == (architecture, operation, _name(dtype), training, channels, length, causal):
            by = f"{row.ratio:.2f} times as fast as torch ({row.device}, {row.date})"
            if row.ratio >= LEAST_RATIO:
                return Choice("triton", by)
            return Choice("torch", f"the program is {by}, and {LEAST_RATIO} is asked for")
    if dtype == torch.float32:
        return Choice("torch", "no program is chosen for float32; there are some for bfloat16 and float16")
    return Choice("torch", f"not measured on {architecture}")


def choose_loss(architecture: str, dtype: torch.dtype) -> Choice:
    """What the losses run with, as `choose`. Memory is linear in the batch either way."""
    reason = _no_loss_program(dtype)
    if _forced is not None:
        return forced(_forced, reason or _unable(architecture))
    reason = _no_device(architecture) or reason
    if reason is not None:
        return Choice("torch", reason)
    return Choice("triton", f"fewer passes over memory; its time is not measured on {architecture}")


def forced(backend: Backend, reason: str | None) -> Choice:
    """The choice of `use_backend`; `reason` is why programs cannot run, or None where they can."""
    wrong = f", an error: {reason}" if backend == "triton" and reason else ""
    return Choice(backend, f"use_backend({backend!r}){wrong}")


def _unable(architecture: str) -> str | None:
    """Why programs cannot run on `architecture` even if asked for; the interpreter makes them run on a CPU."""
    return _no_device(architecture) if architecture != "cpu" else why_no_triton(torch.device("cpu"))


def _no_device(architecture: str) -> str | None:
    if not architecture.startswith("sm_"):
        return f"the programs are for CUDA devices, not for {architecture}"
    if int(architecture.removeprefix("sm_")) < 10 * _OLDEST_CAPABILITY[0]:
        return f"{architecture} is older than sm_80"
    return None


def _no_loss_program(dtype: torch.dtype) -> str | None:
    return "features of float64 have none" if dtype == torch.float64 else None


def _insist(no_program: str | None, device: torch.device) -> Backend:
    reason = no_program or why_no_triton(device)
    if reason is not None:
        raise ConfigError(f"use_backend('triton'): {reason}; allowed here: 'torch'.")
    return "triton"


@_constant
def _known(
    device: torch.device, operation: Operation, dtype: torch.dtype, training: bool, causal: bool
) -> tuple[tuple[int, int, Backend], ...]:
    """Channels, length and backend of each row that says something about `device`."""
    return _read(device, operation, dtype, training, causal)


@functools.cache
def _read(
    device: torch.device, operation: Operation, dtype: torch.dtype, training: bool, causal: bool
) -> tuple[tuple[int, int, Backend], ...]:
    if why_no_triton(device) is not None:
        return ()
    major, minor = torch.cuda.get_device_capability(device)
    here = (f"sm_{major}{minor}", operation, _name(dtype), training)
    return tuple(
        (row.channels, row.length, "triton" if row.ratio >= LEAST_RATIO else "torch")
        for row in measured.MEASURED
        if row[:4] == here and row.causal == causal
    )


def _tell(what: str, device: torch.device) -> None:
    if what not in _told:
        _told.add(what)
        reason = why_no_triton(device) or f"it is not measured on a {torch.cuda.get_device_name(device)}"
        log.info("%s runs in torch: %s", what, reason)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
