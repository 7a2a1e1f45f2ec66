"""What is saved on the way, and what a run goes on from: `CheckpointConfig`."""

from __future__ import annotations

import dataclasses

from clip_core.schema import Schema

__all__ = ["CheckpointConfig"]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointConfig(Schema):
    """Checkpoints, and the run that is continued."""
