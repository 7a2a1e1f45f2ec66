"""Checkpoints: folders that are there whole or not at all, and runs that go on from one as if nothing had happened.

`manifest` says what a checkpoint is on the disk, `tree` how values become files, `state` what a run consists of,
`full` and `sharded` how that is written and read, `saver` when, and `resume` which one a run goes on from.
"""

from __future__ import annotations

from clip_train.checkpoint.manifest import Published, newest, published, verify

__all__ = ["Published", "newest", "published", "verify"]
