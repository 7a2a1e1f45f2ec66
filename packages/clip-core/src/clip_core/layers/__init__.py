"""Building blocks that more than one tower is made of. Shapes: B batch, S sequence, W width, H heads."""

from __future__ import annotations

__all__: list[str] = []
