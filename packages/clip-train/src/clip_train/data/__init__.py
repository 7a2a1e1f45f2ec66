"""From files to batches: what there is (`shards`, `csv`), in which order (`order`), decoded (`decode`), in time (`loader`)."""

from __future__ import annotations
