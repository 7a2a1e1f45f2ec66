"""Where the numbers of a record come from, as pairs of a name and a text: data, prompts, precision, machine, time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clip_eval.report.results import Result

__all__ = ["provenance"]

_SECONDS = {
    "decode_wait": "waiting for pictures",
    "encode_images": "encoding pictures",
    "encode_texts": "encoding texts",
    "metrics": "metrics",
}
_PROMPTS = 3


def provenance(result: Result) -> list[tuple[str, str]]:
    """Only what the record states."""
    data, dataset = result.data, result.data["dataset"]
    about = dataset.get("about") or {}
    excluded = dataset["excluded"]
    pairs = [
        (
            "Data set",
            f"{dataset['name']}, split {dataset['split']}, {dataset['samples']:,} samples, "
            f"{excluded['count']:,} left out",
        ),
        ("Left out", _excluded(excluded)),
        ("Fetched from", " at ".join(filter(None, (dataset.get("address"), dataset.get("revision"))))),
        ("Source", about.get("source")),
        ("Licence", about.get("licence")),
        ("Shards, sha256", dataset.get("shards_sha256")),
        ("Language", (data.get("settings") or {}).get("language")),
        ("Prompts", _prompts(data)),
        ("Precision", _listed(data["precision"])),
        ("Device", _device(data)),
        ("Feature store", _listed(data["store"]) if isinstance(data.get("store"), dict) else None),
        ("Seconds", _seconds(data["seconds"])),
        ("Versions", ", ".join(f"{name} {value}" for name, value in data["versions"].items())),
        ("Command", data.get("command")),
        ("Evaluated", data.get("created")),
        ("Record", result.path.name),
    ]
    return [(name, str(text)) for name, text in pairs if text]


def _listed(facts: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items())


def _excluded(excluded: Mapping[str, Any]) -> str:
    first = [f"{entry['name']} ({entry['reason']})" for entry in excluded.get("first") or []][:5]
    rest = excluded["count"] - len(first)
    return "; ".join([*first, *([f"and {rest:,} more"] if first and rest > 0 else [])])


def _prompts(data: Mapping[str, Any]) -> str | None:
    templates = data["details"].get("templates")
    if not isinstance(templates, list) or not templates:
        return None
    shown = ", ".join(f"“{template}”" for template in templates[:_PROMPTS])
    rest = len(templates) - _PROMPTS
    return shown if rest <= 0 else f"{shown} and {rest} more"


def _device(data: Mapping[str, Any]) -> str:
    parts = [str(data.get("device", "")), str(data.get("device_name") or "")]
    if data.get("batch_size"):
        parts.append(f"batches of {data['batch_size']}")
    if (data.get("processes") or 1) > 1:
        parts.append(f"{data['processes']} processes")
    return ", ".join(part for part in parts if part)


def _seconds(seconds: Mapping[str, float]) -> str:
    split = ", ".join(f"{label} {seconds[name]:.2f}" for name, label in _SECONDS.items() if name in seconds)
    return f"{seconds['total']:.2f} in all: {split}" if "total" in seconds else split
