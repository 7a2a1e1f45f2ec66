"""How many processor cores this process has; not who shares them with it."""

from __future__ import annotations

import os

__all__ = ["own_cores"]


def own_cores() -> int:
    """The cores that this process may run on, at least 1: in a container or under SLURM fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
