"""Model cards written from files: a run's settings and metrics, evaluation records, and the model itself.

`write_card(facts)` is the text, `draw` the pictures. `clip_hub.staging` finds the facts of a folder.
"""

from __future__ import annotations

from clip_hub.card.facts import LICENCES, CardFacts, Description
from clip_hub.card.figures import draw, has_matplotlib
from clip_hub.card.folder import Run, find_epochs, find_model, find_records, find_run
from clip_hub.card.metadata import check_card
from clip_hub.card.page import write_card
from clip_hub.card.results import Row, read_curves, read_rows, weights_sha256

__all__ = [
    "LICENCES",
    "CardFacts",
    "Description",
    "Row",
    "Run",
    "check_card",
    "draw",
    "find_epochs",
    "find_model",
    "find_records",
    "find_run",
    "has_matplotlib",
    "read_curves",
    "read_rows",
    "weights_sha256",
    "write_card",
]
