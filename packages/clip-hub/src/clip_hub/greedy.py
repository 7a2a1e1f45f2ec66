"""Greedy soups: which checkpoints go into an average is decided by a score that a command prints.

The greedy recipe of Wortsman et al., "Model soups", ICML 2022: candidates by their own score, best first; each stays in
if the average with it scores no less than the one without. What this room leaves out: what is evaluated, which is the
command's affair, and averaging, which is in `soup`.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import os
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from clip_core.building import Precision
from clip_core.errors import ClipError, ConfigError
from clip_hub.scrubbing import scrubbed_command, scrubbed_names
from clip_hub.soup import average, check_same
from clip_hub.sources import Source, open_source

__all__ = ["Evaluation", "EvaluationFailed", "GreedySoup", "greedy_soup", "scored_by"]

_log = logging.getLogger(__name__)

Evaluation = Callable[[Path], float]
"""The score of the bundle in a folder; higher is better."""


class EvaluationFailed(ClipError):
    """The command that scores a candidate failed or printed no number; names the command and what it said."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class GreedySoup:
    """What became of the candidates."""

    folder: Path
    score: float
    kept: tuple[str, ...]
    """Names of what went in, best first."""
    scores: dict[str, float]
    """Of every candidate by itself."""
    steps: tuple[tuple[str, float, bool], ...]
    """(name, score of the average with it, whether it stayed in), in the order in which they were tried."""


def scored_by(command: str) -> Evaluation:
    """The evaluation that runs `command`, with "{}" in its words replaced by the candidate's folder.

    It is split into words as a shell would (`shlex`) and started without one, so pipes and variables mean nothing. The
    last line that it prints on stdout is the score; what it writes to stderr passes through.

    Raises:
        ConfigError: the command is empty, has quotes that do not close, or no "{}".

    The evaluation raises `EvaluationFailed`.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ConfigError(f"The command {command!r} cannot be split into words: {error}.") from error
    if not any("{}" in word for word in words):
        raise ConfigError(f"The command {command!r} has no {{}}, where the folder of the candidate goes.")

    def score(folder: Path) -> float:
        filled = [word.replace("{}", os.fspath(folder)) for word in words]
        try:
            done = subprocess.run(filled, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, check=False)
        except OSError as error:
            raise EvaluationFailed(f"Cannot start {shlex.join(filled)}: {error}.") from error
        if done.returncode:
            raise EvaluationFailed(f"{shlex.join(filled)} ended with exit code {done.returncode}; nothing was written.")
        last = next((line.strip() for line in reversed(done.stdout.splitlines()) if line.strip()), "")
        try:
            found = float(last)
        except ValueError as error:
            raise EvaluationFailed(
                f"The last line that {shlex.join(filled)} printed is {last!r}; it has to be a number, higher is better."
            ) from error
        if not math.isfinite(found):
            raise EvaluationFailed(f"{shlex.join(filled)} printed the score {last}; it has to be finite.")
        return found

    return score


def greedy_soup(
    names: Sequence[str | os.PathLike[str]],
    folder: str | os.PathLike[str],
    evaluation: Evaluation | str,
    *,
    dtype: Precision | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
    overwrite: bool = False,
    progress: bool = False,
    report: Callable[[str], None] = _log.info,
) -> GreedySoup:
    """Write the greedy soup of the checkpoints `names` as a bundle; its `soup.json` says what was tried and kept.

    Every candidate is a bundle in a folder of its own while it is evaluated, in the dtype of the result, and what is
    written at the end is bit for bit what had the score. Candidates with equal scores go in the order of `names`.

    Args:
        names, folder, dtype, cache_dir, token, overwrite, progress: as `soup.soup`; two or more names, each once.
        evaluation: a command (see `scored_by`), or a function from a folder to a score.
        report: is told each score when it is known.

    Raises:
        EvaluationFailed: a score could not be had.
        ConfigError, CheckpointMismatch: as `soup.soup`.
    """
    if len(names) < 2 or len({os.fspath(name) for name in names}) != len(names):
        raise ConfigError("A greedy soup is chosen from two or more checkpoints, each given once.")
    score = scored_by(evaluation) if isinstance(evaluation, str) else evaluation
    sources = [open_source(name, cache_dir=cache_dir, token=token) for name in names]
    check_same(sources)
    target = Path(folder).resolve()
    if target.is_file() or (target.is_dir() and any(target.iterdir()) and not overwrite):
        # Before hours of evaluation, not after.
        raise ConfigError(f"{folder} already exists; choose another folder or pass overwrite=True to replace a bundle.")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as scratch:
        place = Path(scratch) / "candidate"

        def evaluated(chosen: Sequence[Source]) -> float:
            average(chosen, [1.0] * len(chosen), place, None, dtype=dtype, overwrite=True, progress=progress)
            return score(place)

        alone: dict[str, float] = {}
        for source in sources:
            alone[source.name] = evaluated([source])
            report(f"{alone[source.name]:g}\t{source.name} alone")
        ordered = sorted(sources, key=lambda source: -alone[source.name])  # stable: equal ones stay in their order
        kept, best = [ordered[0]], alone[ordered[0].name]
        steps = [(kept[0].name, best, True)]
        for source in ordered[1:]:
            value = evaluated([*kept, source])
            stays = value >= best
            report(f"{value:g}\twith {source.name}: {'kept' if stays else 'left out'}")
            steps.append((source.name, value, stays))
            if stays:
                kept, best = [*kept, source], value
    called = scrubbed_names([source.name for source in kept] + [source.name for source in sources])
    record = {
        "score": best,
        "command": scrubbed_command(evaluation) if isinstance(evaluation, str) else None,
        "scores": {called[name]: value for name, value in alone.items()},
        "steps": [{"name": called[name], "score": value, "kept": stays} for name, value, stays in steps],
    }
    written = average(
        kept,
        [1.0] * len(kept),
        folder,
        "greedy soup",
        dtype=dtype,
        record=record,
        overwrite=overwrite,
        progress=progress,
    )
    return GreedySoup(
        folder=written, score=best, kept=tuple(source.name for source in kept), scores=alone, steps=tuple(steps)
    )
