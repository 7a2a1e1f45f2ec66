"""How fast Triton's programs were against the best that torch has, on each kind of GPU that somebody measured.

Rows of facts, written by `tools/measured.py` from the JSON of `bench/bench_gpu.py`; `dispatch` has the rule that reads
them. What has no row runs in torch.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

__all__ = ["MEASURED", "Measured", "Operation", "length_class"]

Operation = Literal["attention", "packed_attention", "quick_gelu"]


class Measured(NamedTuple):
    """One measurement, at one shape, in one direction."""

    architecture: str
    """"sm_90": the compute capability of the device, without its dot."""
    operation: Operation
    dtype: str
    """"bfloat16" or "float16"."""
    training: bool
    """True: forward and backward, from the packed input to its packed gradient; False: forward alone."""
    channels: int
    """Of a head; 0 for quick_gelu, which has none."""
    length: int
    """For attention the tokens of each sequence; for packed attention the class of the longest sequence, as
    `length_class` gives it; 0 for quick_gelu."""
    causal: bool
    """False for quick_gelu."""
    ratio: float
    """Time of the fastest other way, divided by that of the program: above 1 the program is faster.

    The other ways are each SDPA backend by itself for attention, the same on padded texts for packed attention, and
    eager torch for quick_gelu."""
    device: str
    """The name of the device, as torch tells it: "NVIDIA H200"."""
    date: str
    """The day of the measurement: "2026-11-21"."""


def length_class(longest: int) -> int:
    """16, 32, 64, 80 or 128, the least of them that is not below `longest`; `longest` itself above 128."""
    for most in (16, 32, 64, 80, 128):
        if longest <= most:
            return most
    return longest


MEASURED: tuple[Measured, ...] = ()
