"""The sweep of a linear probe: what each weight decay scored on validation images, and which was chosen."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clip_eval.report.numbers import percent, words
from clip_eval.report.plots import Plot, linear
from clip_eval.training_log import nice_ticks

__all__ = ["ProbeRun", "ProbeSweep", "probe_sweep"]


@dataclass(frozen=True, slots=True)
class ProbeRun:
    """One seed: its trials by ascending decay, (decay, score on the validation images), and its choice."""

    seed: int
    trials: list[tuple[float, float]]
    chosen: float
    at_edge: bool
    converged: bool
    learnt_from: int
    validated_on: int


@dataclass(frozen=True, slots=True)
class ProbeSweep:
    """All seeds of a probe that chose among two decays or more."""

    runs: list[ProbeRun]
    fewshot_k: int | None
    spread: list[tuple[str, str]]
    """Metrics in words with their values by seed, where there are several."""

    @property
    def at_edge(self) -> bool:
        """Whether a decay beyond the grid may be better still."""
        return any(run.at_edge for run in self.runs)

    @property
    def plot(self) -> Plot:
        """Score over decay, which has a logarithmic axis; a line per seed, its choice marked."""
        decays = [decay for run in self.runs for decay, _ in run.trials]
        scores = [score for run in self.runs for _, score in run.trials]
        low, high = math.floor(math.log10(min(decays))), math.ceil(math.log10(max(decays)))
        high = max(high, low + 1)
        ticks = nice_ticks(min(scores), max(scores), 4)
        every = max(1, round((high - low) / 5))
        plot = linear(
            x=(10.0**low, 10.0**high),
            y=(ticks[0], ticks[-1]),
            x_label="weight decay",
            y_label="score on validation images",
            description="Linear probe. "
            + " ".join(
                f"Seed {run.seed}, decay {decay:.1e}: {percent(score)}."
                for run in self.runs
                for decay, score in run.trials
            ),
            x_ticks=[(10.0**power, f"1e{power}") for power in range(low, high + 1, every)],
            y_ticks=[(tick, f"{100 * tick:.4g} %") for tick in ticks],
            x_scale=math.log10,
        )
        for run in self.runs:
            plot.add_line(run.trials, "curve")
        for run in self.runs:
            for decay, score in run.trials:
                style = "chosen" if math.isclose(decay, run.chosen, rel_tol=1e-6) else "own"
                plot.add_dot(decay, score, f"decay {decay:.2e}: {percent(score)}", style=style)
        return plot


def probe_sweep(details: Mapping[str, Any]) -> ProbeSweep | None:
    """None where the record has no sweep of two decays or more."""
    runs = []
    for run in details.get("runs") or []:
        trials = sorted((float(trial["decay"]), float(trial["score"])) for trial in run.get("sweep") or [])
        if len(trials) >= 2 and trials[0][0] > 0:
            runs.append(
                ProbeRun(
                    seed=int(run["seed"]),
                    trials=trials,
                    chosen=float(run["weight_decay"]),
                    at_edge=bool(run.get("at_edge_of_grid")),
                    converged=bool(run.get("converged", True)),
                    learnt_from=int(run.get("learnt_from") or 0),
                    validated_on=int(run.get("validated_on") or 0),
                )
            )
    if not runs:
        return None
    spread = [
        (words(name).label, ", ".join(percent(float(value)) for value in entry["values"]))
        for name, entry in (details.get("spread") or {}).items()
        if len(entry["values"]) > 1
    ]
    shots = details.get("fewshot_k")
    return ProbeSweep(runs, None if shots is None else int(shots), spread)
