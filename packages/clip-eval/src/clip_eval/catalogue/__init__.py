"""The catalogue: facts about every data set of the known suites, so that a name is enough to fetch, check and score it.

One module for each family holds the rows; `entry` is their form. What is not here: class names and templates
(`clip_eval.prompts`), published scores (`clip_eval.published`), the suites (`clip_eval.suites`).
"""

from __future__ import annotations

from clip_eval.catalogue.entry import Entry, Groups
from clip_eval.catalogue.finding import entries, find, lookup, names

__all__ = ["Entry", "Groups", "entries", "find", "lookup", "names"]
