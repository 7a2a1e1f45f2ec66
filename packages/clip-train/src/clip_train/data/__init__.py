"""From files to batches: what there is (`source`), in which order (`order`), decoded (`decode`), in time (`loader`)."""

from __future__ import annotations

__all__: list[str] = []
