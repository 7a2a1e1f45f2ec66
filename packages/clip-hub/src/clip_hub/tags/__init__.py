"""Rows of facts about published weights, one file per family of architectures; `clip_hub.registry` reads them.

Left out: weights for sound (CLAP), whose towers clip-core does not have.
"""

from __future__ import annotations

__all__: list[str] = []
