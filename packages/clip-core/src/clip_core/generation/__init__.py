"""Captions from a CoCa: beam search, the likeliest token, or drawing among the likely ones.

`options` says how, `decoding` computes the logits of the next token, `scores` changes them, `beams` and `sampling`
choose by them. `CoCa.generate` is the way in. Nothing here knows of strings: ids go in and come out.
"""

from __future__ import annotations

from clip_core.generation.beams import search_beams
from clip_core.generation.decoding import CachedDecoding, Decoding, RecomputedDecoding
from clip_core.generation.options import GenerationOptions
from clip_core.generation.prompts import read_prompt
from clip_core.generation.sampling import sample

__all__ = [
    "CachedDecoding",
    "Decoding",
    "GenerationOptions",
    "RecomputedDecoding",
    "read_prompt",
    "sample",
    "search_beams",
]
