"""Results against published scores: `clip_eval.regress` and the command of this name (`clip_eval.commands.regress`)."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import pytest

from clip_core.errors import ConfigError
from clip_eval.commands import regress as command
from clip_eval.metrics import wilson
from clip_eval.published import published_row, tolerance_for
from clip_eval.records import Row, SavedRecord, Score
from clip_eval.regress import failures, regress, summary, table
from clip_eval.suites import suite

_MODEL = ("ViT-B-32", "openai")


def row(dataset: str, metrics: dict[str, float | Score], **more: object) -> Row:
    scores = {name: value if isinstance(value, Score) else Score(value=value) for name, value in metrics.items()}
    facts: dict[str, object] = {
        "split": "test",
        "task": "zero_shot_classification",
        "language": "en",
        "source": "clip-eval",
        "model": _MODEL[0],
        "pretrained": _MODEL[1],
        "path": Path("results.json"),
        **more,
    }
    return Row(dataset=dataset, metrics=scores, **facts)  # type: ignore[arg-type]


def published(dataset: str, metric: str | None = None) -> float:
    score = published_row(*_MODEL).score(dataset, metric)
    assert score is not None
    return score


def test_the_published_scores_agree_with_themselves() -> None:
    scores = published_row(*_MODEL).scores
    rows = [row(dataset, scores[dataset]["en"]) for dataset in suite("datacomp").aggregates["Average"]]  # type: ignore[arg-type]
    tasks = {"flickr30k": "retrieval", "mscoco_captions": "retrieval", "winogavil": "association"}
    rows = [row(one.dataset, dict(one.metrics), task=tasks.get(one.dataset, one.task)) for one in rows]
    checks = regress(rows)
    assert not failures(checks)
    verdicts = {check.dataset: check.verdict for check in checks}
    assert len(verdicts) == 38
    assert {name for name, verdict in verdicts.items() if verdict != "agrees"} == {
        "vtab/svhn",
        "vtab/clevr_closest_object_distance",
    }
    # Six recalls and their mean twice, seven Jaccard indices, one number of the 33 others that can be compared.
    assert summary(checks) == "54 numbers compared: 54 within the tolerance, 2 not comparable."


@pytest.mark.parametrize(
    ("points", "verdict", "strict"),
    # ImageNet: tolerance 0.0012, the interval of 50,000 images reaches 0.0042; together 0.0044.
    [
        *[(0.0011, "agrees", "agrees"), (-0.0011, "agrees", "agrees"), (0.0040, "within error", "differs")],
        *[(-0.0040, "within error", "differs"), (0.0046, "differs", "differs"), (-0.0046, "differs", "differs")],
    ],
)
def test_what_is_allowed(points: float, verdict: str, strict: str) -> None:
    result = row("imagenet1k", {"acc1": published("imagenet1k") + points})
    assert [check.verdict for check in regress([result])] == [verdict]
    assert [check.verdict for check in regress([result], strict=True)] == [strict]


def test_the_allowance_is_the_root_of_the_squares() -> None:
    value = published("vtab/pets") - 0.01
    low, high = wilson(value, 3_669)
    [check] = regress([row("vtab/pets", {"mean_per_class_recall": Score(value=value, n=3_669, low=low, high=high)})])
    expected = math.hypot(tolerance_for("vtab/pets").value, high - value) + 0.5e-4
    assert check.allowed == pytest.approx(expected)
    assert check.difference == pytest.approx(-0.01)


def test_what_measures_something_else_is_said_and_not_counted() -> None:
    good = row("imagenet1k", {"acc1": published("imagenet1k")})
    cases = {
        "two published tables differ": row("vtab/svhn", {"acc1": 0.9}),
        "split train": row("mnist", {"acc1": 0.9}, split="train"),
        "no published score in it": row("imagenet1k", {"acc1": 0.2}, language="it"),
        "the result has no mean_per_class_recall": row("vtab/flowers", {"acc1": 0.9}),
        "measured with other templates": row("mnist", {"acc1": 0.9}, record=_record(["a {c}."])),
    }
    for reason, result in cases.items():
        checks = regress([good, result])
        assert not failures(checks)
        assert [check.note for check in checks if check.value is None and reason in check.note], reason
    # Data sets outside the catalogue and other tasks have nothing to be compared with.
    assert len(regress([good, row("own", {"acc1": 0.1}), row("mnist", {"lp_acc1": 0.9}, task="linear_probe")])) == 1


def _record(templates: list[str], names: list[str] | None = None) -> SavedRecord:
    classes = [{"name": name} for name in names or [str(digit) for digit in range(10)]]
    return SavedRecord(Path("x.json"), {"details": {"templates": templates, "classes": classes}})


def test_the_usual_prompts_are_compared_and_other_names_are_noted() -> None:
    usual = ['a photo of the number: "{c}".']
    value = {"acc1": published("mnist")}
    [check] = regress([row("mnist", value, record=_record(usual))])
    assert (check.verdict, check.note) == ("agrees", "")
    [check] = regress([row("mnist", value, record=_record(usual, ["zero", *map(str, range(1, 10))]))])
    assert check.note == "1 class names differ from CLIP_benchmark's"


def test_a_part_of_the_images_and_an_unmeasured_tolerance_are_noted() -> None:
    [check] = regress([row("stl10", {"acc1": Score(value=published("stl10"), n=7_990)})])
    assert check.note == "no second table: the largest tolerance known; 7,990 of 8,000 images"


def test_which_row() -> None:
    mine = row("imagenet1k", {"acc1": published("imagenet1k")}, model="runs/mine", pretrained="")
    with pytest.raises(ConfigError, match=r"None of the 1 results \(runs/mine on imagenet1k\) can be compared"):
        regress([mine])
    assert not failures(regress([mine], model="ViT-B-32", tag="openai"))
    assert not failures(regress([mine], model="ViT-B/32:openai"))
    with pytest.raises(ConfigError, match="needs its tag"):
        regress([mine], model="ViT-B-32")
    with pytest.raises(ConfigError, match="the results are of 2 models"):
        regress([mine, row("mnist", {"acc1": 0.4})], model="ViT-B-32", tag="openai")
    # Without a choice each result goes by its own name, and what has no row is left out.
    both = regress(
        [row("imagenet1k", {"acc1": 0.6332}), row("imagenet1k", {"acc1": 0.7}, pretrained="laion2b_s34b_b79k")]
    )
    assert [check.verdict for check in both] == ["agrees", "differs"]
    assert "ViT-B-32:laion2b_s34b_b79k imagenet1k" in "\n".join(table(both))


def _run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    parser = argparse.ArgumentParser()
    command.add(parser.add_subparsers())
    options = parser.parse_args(["regress", *arguments])
    return options.action(options), capsys.readouterr().out


def _write(folder: Path, dataset: str, metrics: dict[str, float]) -> None:
    data = {"dataset": dataset, "model": _MODEL[0], "pretrained": _MODEL[1], "metrics": metrics, "language": "en"}
    data["task"] = "zeroshot_retrieval" if "captions" in dataset else "zeroshot_classification"
    (folder / f"{dataset.replace('/', '_')}.json").write_text(json.dumps(data))


def test_the_command_reads_clip_benchmarks_results_and_leaves_an_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _write(tmp_path, "wds/imagenet1k", {"acc1": 0.6335, "acc5": 0.88})
    _write(tmp_path, "wds/mscoco_captions", {"image_retrieval_recall@5": 0.5580, "text_retrieval_recall@5": 0.7510})
    code, out = _run(capsys, str(tmp_path))
    assert code == 0
    assert "against the published scores of ViT-B-32:openai" in out
    assert "3 numbers compared: 3 within the tolerance." in out
    _write(tmp_path, "wds/imagenet-r", {"acc1": 0.60})
    code, out = _run(capsys, str(tmp_path))
    assert code == 1
    [failed] = [line for line in out.splitlines() if line.startswith("!")]
    assert failed.split()[1:4] == ["imagenet-r", "acc1", "0.6000"]
    code, out = _run(capsys, str(tmp_path), "--json")
    found = json.loads(out)
    assert (code, found["failed"], len(found["checks"])) == (1, 1, 4)
    assert _run(capsys, str(tmp_path / "wds_imagenet1k.json"), "--strict")[0] == 0
    with pytest.raises(ConfigError, match="--tag needs --model"):
        _run(capsys, str(tmp_path), "--tag", "openai")
