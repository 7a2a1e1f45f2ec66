"""What a folder that is to be published holds: a bundle, or a training run with its bundle, records and metrics.

clip-train and clip-eval stand to the right of this package: their files are read as files. What this room leaves out:
the weights (`staging`), and what the card says of all this (`page`).
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from pathlib import Path
from typing import Any

from clip_core.convert.checkpoint import read_json
from clip_core.errors import ConfigError, DataError

__all__ = ["EVALUATIONS", "Run", "find_epochs", "find_model", "find_records", "find_run"]

EVALUATIONS = "eval"
"""The folder inside a run or a bundle in which evaluation records are looked for."""
_EPOCH = re.compile(r"epoch_(\d+)")
_GROUPS = {"data", "model", "optim", "run"}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """A training run, as it wrote itself down."""

    folder: Path
    config: dict[str, dict[str, Any]]
    """`config.json`: group -> setting -> value, everything resolved."""
    steps: list[dict[str, Any]]
    """`metrics.jsonl`: one record per step, with `step` and `loss` (None where it was not finite)."""
    summary: dict[str, Any]
    """`summary.json`, or empty."""

    @property
    def settings(self) -> dict[str, Any]:
        """All settings without their groups, in the run's order."""
        return {name: value for group in self.config.values() for name, value in group.items()}


def find_run(folder: str | os.PathLike[str]) -> Run | None:
    """The training run in `folder`; None where it is not a run's folder.

    Raises:
        ConfigError: its bundle is missing: the run has not finished.
        DataError: a file of it is damaged; names file and line.
    """
    home = Path(folder)
    config = _run_config(home / "config.json")
    if config is None:
        return None
    if not (home / "bundle").is_dir():
        raise ConfigError(f"{folder} is a training run without a bundle: it has not finished, or was interrupted.")
    summary = read_json(home / "summary.json") if (home / "summary.json").is_file() else {}
    return Run(folder=home, config=config, steps=_steps(home / "metrics.jsonl"), summary=summary)


def find_model(path: str | os.PathLike[str]) -> Path:
    """What of `path` holds the weights: a run's bundle, or `path` itself; raises `ConfigError` where there is none."""
    home = Path(path)
    if not home.exists():
        raise ConfigError(f"There is no {path}; give a bundle's folder, a training run's folder, or a file of weights.")
    return home / "bundle" if home.is_dir() and _run_config(home / "config.json") is not None else home


def find_records(path: str | os.PathLike[str], results: str | os.PathLike[str] | None = None) -> list[Path]:
    """The evaluation records in `results`, or, where it is None, in `eval/` inside the folder `path`.

    Raises:
        DataError: `results` is given and has none.
    """
    folder = Path(path) / EVALUATIONS if results is None else Path(results)
    found = sorted(folder.glob("*.json")) if folder.is_dir() else []
    if results is not None and not found:
        raise DataError(f"{results} holds no evaluation record; `clip-eval run ... --output {results}` writes them.")
    return found


def find_epochs(path: str | os.PathLike[str]) -> dict[int, list[Path]]:
    """Epoch -> the evaluation records of the weights after it, from `eval/epoch_1/*.json`, `eval/epoch_2/*.json` ...

    They are what clip-eval writes, of the run in the folder `path` while it went on; each epoch may have several.
    """
    folder = Path(path) / EVALUATIONS
    found = {}
    for place in folder.iterdir() if folder.is_dir() else ():
        epoch = _EPOCH.fullmatch(place.name)
        records = sorted(place.glob("*.json")) if epoch and place.is_dir() else []
        if epoch and records:
            found[int(epoch[1])] = records
    return dict(sorted(found.items()))


def _run_config(path: Path) -> dict[str, dict[str, Any]] | None:
    """A run's settings; None where the file is missing or is another's, such as transformers' `config.json`."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(content, dict) or not set(content) >= _GROUPS:
        return None
    return content if all(isinstance(group, dict) for group in content.values()) else None


def _steps(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    # Whoever writes a line ends it: text behind the last line feed is what a killed run did not finish.
    *lines, _ = path.read_text(encoding="utf-8").split("\n")
    steps = []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            valid = isinstance(record["step"], int) and (
                record["loss"] is None or isinstance(record["loss"], float | int)
            )
        except (ValueError, KeyError, TypeError):
            valid = False
        if not valid:
            raise DataError(f"{path}: line {number} is no record of a step with its loss.")
        steps.append(record)
    return steps
