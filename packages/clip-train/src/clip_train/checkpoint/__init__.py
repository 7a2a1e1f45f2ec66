"""Checkpoints: folders that are there whole or not at all, and runs that go on from one as if nothing had happened.

`manifest` says what a checkpoint is on the disk, `tree` how values become files, `state` what a run consists of,
`full` and `sharded` how that is written and read, `saver` when, and `resume` which one a run goes on from.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from clip_train.checkpoint.manifest import Published, newest, published, verify

if TYPE_CHECKING:
    from clip_train.checkpoint.sharded import export

__all__ = ["Published", "export", "newest", "published", "verify"]


def __getattr__(name: str) -> Any:
    # Reading shards takes the whole of the trainer with it, which itself comes here.
    if name == "export":
        return importlib.import_module("clip_train.checkpoint.sharded").export
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
