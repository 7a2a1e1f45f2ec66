"""What the page says about the run that trained the model."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from typing import Any

from clip_eval.training_log import TrainingLog, loss_curve

__all__ = ["training_facts"]


def training_facts(log: TrainingLog) -> dict[str, Any]:
    """The curve, the facts beside it, and the resolved configuration."""
    last = log.steps[-1]
    speeds = [entry["samples_per_second"] for entry in log.steps if entry.get("samples_per_second")]
    facts: list[tuple[str, str]] = [("Run", log.name), ("Steps", f"{last['step']:,}")]
    _add(
        facts,
        "Epochs begun",
        last.get("epoch"),
        lambda value: f"{value:g}" if isinstance(value, float) else str(value + 1),
    )
    _add(facts, "Samples seen", last.get("samples_seen"), lambda value: f"{value:,}")
    _add(facts, "Samples per second, median", statistics.median(speeds) if speeds else None, lambda v: f"{v:,.0f}")
    bad = sum(entry["loss"] is None for entry in log.steps)
    if bad:
        facts.append(("Steps whose loss was not a number", f"{bad:,}"))
    if log.cut:
        facts.append(("Log", "its last line is cut short: the run was stopped in the middle of a step"))
    return {
        "facts": facts,
        "curve": loss_curve(log),
        "config": json.dumps(log.config, indent=2, ensure_ascii=False),
    }


def _add(facts: list[tuple[str, str]], name: str, value: Any, form: Callable[[Any], str]) -> None:
    if value is not None:
        facts.append((name, form(value)))
