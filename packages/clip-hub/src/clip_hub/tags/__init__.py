"""Rows of facts about published weights, one file per family of architectures; `clip_hub.registry` reads them."""

from __future__ import annotations

__all__: list[str] = []
