"""The metrics against what CLIP_benchmark, DataComp and WILDS answered on the same scores (golden/)."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

from clip_eval.catalogue import find
from clip_eval.metrics import score_classification
from clip_eval.metrics.average_precision import score_multilabel
from clip_eval.tasks.groups import evaluate_groups
from clip_eval.wds import Sample, WdsDataset

pytestmark = pytest.mark.parity

GOLDEN = Path(__file__).parent / "golden"
ANSWERS = json.loads((GOLDEN / "metrics_of_peers.json").read_text())


def draw(seed: str) -> dict[str, torch.Tensor]:
    """As the script that asked the peers."""
    made = runpy.run_path(str(GOLDEN / "metrics_of_peers.py"))["draw"](int(seed))
    return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in made.items()}


@pytest.mark.parametrize("seed", ANSWERS)
def test_clip_benchmark(seed: str) -> None:
    data, expected = draw(seed), ANSWERS[seed]
    found = score_classification(data["scores"], data["labels"]).metrics
    for name in ("acc1", "acc5", "mean_per_class_recall"):
        assert found[name].value == pytest.approx(expected[name], abs=1e-12)
    several = score_multilabel(data["scores"], data["tags"])
    # Its average precisions are float32.
    assert several.mean.value == pytest.approx(expected["mean_average_precision"], abs=1e-6)
    precisions = [entry.average_precision or 0 for entry in several.per_class]
    assert precisions == pytest.approx(expected["average_precisions"], abs=1e-6)


@pytest.mark.parametrize("seed", ANSWERS)
@pytest.mark.parametrize("name", sorted(ANSWERS["0"]["datacomp"]))
def test_datacomp_and_wilds(seed: str, name: str) -> None:
    data, expected = draw(seed), dict(ANSWERS[seed]["datacomp"][name])
    entry = find(name)
    assert entry.groups is not None
    columns = {"region": data["regions"], "year": data["years"], "slide": data["regions"], "income_ds": data["regions"]}
    rows = torch.stack([columns.get(field, torch.zeros(240)) for field in entry.groups.fields], dim=1).tolist()
    dataset = WdsDataset(
        name=name,
        folder=Path(name),
        split="test",
        kind="classification",
        samples=tuple(Sample("0.tar", str(number), {}) for number in range(240)),
        classnames=tuple(map(str, range(7))),
        labels=tuple(data["labels"].tolist()),
        metadata=tuple(map(tuple, rows)),
    )
    scores = score_classification(data["scores"], data["labels"])
    found, details = evaluate_groups(
        dataset, torch.arange(240), scores, data["labels"], entry.groups, entry.main_metric
    )
    if name == "wilds/fmow":
        # The region "Other" is number 5. DataComp's evaluator means to leave it out of the worst, and does not.
        counted = expected.pop("acc_worst_region")
        assert found["acc_worst_region_all"].value == pytest.approx(counted, abs=1e-6)
        others = [value for key, value in expected.items() if key.startswith("acc_region:") and key[-1] != "5"]
        assert found["acc_worst_region"].value == pytest.approx(min(others), abs=1e-6)
    single = {row["key"]: row["value"] for rows in details.get("groups", {}).values() for row in rows}
    sizes = {
        f"count_{row['key'].removeprefix('acc_').removeprefix('top5_')}": row["n"]
        for rows in details.get("groups", {}).values()
        for row in rows
    }
    ours = {key: metric.value for key, metric in found.items()} | single | sizes
    for key, value in expected.items():
        assert ours[key] == pytest.approx(value, abs=1e-6), key


@pytest.mark.parametrize("seed", ANSWERS)
@pytest.mark.parametrize(("objective", "column", "classes"), [("race", 0, 7), ("gender", 1, 2), ("age", 2, 7)])
def test_datacomp_on_faces(seed: str, objective: str, column: int, classes: int) -> None:
    data, expected = draw(seed), ANSWERS[seed]["faces"]
    entry = find("fairness/fairface")
    assert entry.groups is not None
    facts = {"age": data["labels"], "gender": data["genders"], "race": data["races"], "race_binary": data["white"]}
    rows = torch.stack([facts[field] for field in entry.groups.fields], dim=1).double().tolist()
    dataset = WdsDataset(
        name="fairface",
        folder=Path("fairface"),
        split="test",
        kind="classification",
        samples=tuple(Sample("0.tar", str(number), {}) for number in range(240)),
        classnames=tuple(map(str, range(classes))),
        labels=tuple(facts[objective].tolist()),
        metadata=tuple(map(tuple, rows)),
        objective=objective,
    )
    guesses = torch.nn.functional.one_hot(data["guesses"][:, column], classes).double()
    scores = score_classification(guesses, facts[objective])
    found, details = evaluate_groups(
        dataset, torch.arange(240), scores, facts[objective], entry.groups, entry.main_metric
    )
    ours = {key: metric.value for key, metric in found.items()}
    ours |= {row["key"]: row["value"] for rows in details["groups"].values() for row in rows}
    theirs = {key: value for key, value in expected.items() if key.startswith(f"acc_{objective}")}
    assert len(theirs) >= 4
    for key, value in theirs.items():
        assert ours[key] == pytest.approx(value, abs=1e-6), key
