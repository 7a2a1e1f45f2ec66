"""The two ceilings of a device as bench_gpu measures them: a large copy, and a large product of random bfloat16."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from gpu_timing import Case, Clock, Row


def cases(clock: Clock) -> Iterator[Case]:
    side = 64 if clock.rehearsal else 8192
    count = 2**12 if clock.rehearsal else 2**31

    def copy() -> Row:
        source = torch.empty(count, dtype=torch.bfloat16, device=clock.device).normal_()
        target = torch.empty_like(source)
        took = clock.milliseconds(lambda: target.copy_(source))
        return {"ms": took, "tb_per_s": 2 * source.nbytes / took / 1e9}

    def product(dtype: torch.dtype) -> Row:
        one, other = (torch.randn(side, side, device=clock.device).to(dtype) for _ in range(2))
        took = clock.milliseconds(lambda: one @ other)
        return {"ms": took, "tflop_per_s": 2 * side**3 / took / 1e9}

    yield Case("copy", copy)
    yield Case("matmul bfloat16", lambda: product(torch.bfloat16))
    yield Case("matmul float32", lambda: product(torch.float32))
