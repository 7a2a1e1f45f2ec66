"""What a model that draws lots would score: the level that every number of a record is to be read against.

Where the level is not one plain fraction of what the record states, there is none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from clip_eval.catalogue import lookup

__all__ = ["chance_level"]

_PREFIXED = re.compile(r"(?:lp_)?acc(\d+)")
_RETRIEVAL = re.compile(r"(image|text)_retrieval_recall@(\d+)")


def chance_level(name: str, record: Mapping[str, Any]) -> float | None:
    """What metric `name` is under chance: as the record states it, from its counts, or the catalogue's."""
    details = record["details"]
    stated = details.get("chance")
    if isinstance(stated, Mapping) and name in stated:
        return None if stated[name] is None else float(stated[name])
    accuracy = _PREFIXED.fullmatch(name)
    classes = _classes(details)
    if classes:
        if accuracy:
            return min(1.0, int(accuracy[1]) / classes)
        if name.removeprefix("lp_") == "mean_per_class_recall":
            return 1 / classes
    if name == "mean_average_precision":
        return _prevalence(details)
    recall = _RETRIEVAL.fullmatch(name)
    if recall and "images" in details and "captions" in details:
        images, captions, k = int(details["images"]), int(details["captions"]), int(recall[2])
        # A picture with c of M captions has a first answer right with c / M, on average 1 / N whatever the c are. With
        # more than one try it depends on how the captions are spread, which the counts do not say.
        if images > 0 and (recall[1] == "image" or images == captions or k == 1):
            return min(1.0, k / images)
    known = lookup(str(record["dataset"]["name"]))
    return known.chance if known is not None and known.main_metric == name else None


def _classes(details: Mapping[str, Any]) -> int:
    classes = details.get("classes")
    return len(classes) if isinstance(classes, list) else int(classes or 0)


def _prevalence(details: Mapping[str, Any]) -> float | None:
    """The mean share of positives: what average precision tends to for answers in random order."""
    shares = [
        float(entry["prevalence"])
        for entry in details.get("classes") or []
        if isinstance(entry, Mapping) and entry.get("prevalence") is not None
    ]
    return sum(shares) / len(shares) if shares else None
