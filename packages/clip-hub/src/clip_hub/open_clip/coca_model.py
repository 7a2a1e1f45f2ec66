"""OpenCLIP's name for what is in `clip_hub.drop_in.models`."""

from __future__ import annotations

from clip_hub.drop_in.models import CoCa

__all__ = ["CoCa"]
