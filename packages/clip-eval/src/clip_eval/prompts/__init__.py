"""Class names and templates of the catalogue's data sets, in the languages that they exist in, and a user's own.

The words are facts, kept as data files (`tools/benchmark_words.py` writes them) with their spelling mistakes, doubled
templates and one empty class name, because published scores were measured with them. A set without words here is read
with its own; the templates of another set never step in for it. What is not here: filling a template in, encoding.
"""

from __future__ import annotations

from clip_eval.prompts.files import check_class_prompts, read_classnames, read_templates
from clip_eval.prompts.packaged import MissingWords, Prompts, languages_for, prompts_for

__all__ = [
    "MissingWords",
    "Prompts",
    "check_class_prompts",
    "languages_for",
    "prompts_for",
    "read_classnames",
    "read_templates",
]
