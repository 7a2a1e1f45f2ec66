"""How a Triton program is started: by its name, counted, with a configuration that is fixed by the shape.

There is no autotuning: processes that choose by the clock choose differently, and then round differently.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
import triton
from torch import Tensor

__all__ = ["INTERPRETED", "LAUNCHES", "launch"]

INTERPRETED: bool = bool(triton.knobs.runtime.interpret)
"""Whether programs run on the CPU, one after another, in Triton's interpreter.

It multiplies bfloat16 as if the bits were integers, so programs get this as a constant and widen their operands first.
"""

LAUNCHES: Counter[str] = Counter()
"""How often each program was started in this process, by the name of its function."""


def launch(program: Any, grid: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
    """Start `program` on `grid`, on the device of its first tensor, unless the grid is empty.

    Args:
        program: a function under `triton.jit`.
        grid: programs along each axis, up to three.
        arguments: tensors and numbers, in its order.
        constants: its `tl.constexpr` parameters, and `num_warps` and `num_stages`.
    """
    if 0 in grid:
        return
    LAUNCHES[program.__name__] += 1
    # Triton starts a program on the current device and its stream, wherever the tensors are.
    with torch.cuda.device_of(next(one for one in arguments if isinstance(one, Tensor))):
        # Said, because a later Triton rounds products before it adds them where it is not.
        program[grid](*arguments, **{"enable_fp_fusion": True, **constants})
