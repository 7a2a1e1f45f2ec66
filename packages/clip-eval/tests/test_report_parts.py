"""The rooms of the report by themselves: chance, averages, groups of records, curves, and records that lie."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from clip_core.errors import DataError
from clip_eval.commands.report import add
from clip_eval.published import fit_robustness
from clip_eval.records import read_records
from clip_eval.report import render_report
from clip_eval.report.calibration import reliability
from clip_eval.report.chance import chance_level
from clip_eval.report.classes import class_table, confusions, matrix
from clip_eval.report.differences import duels
from clip_eval.report.groups import group_tables
from clip_eval.report.numbers import read_number, signed, words
from clip_eval.report.others import other_columns
from clip_eval.report.pictures import galleries, searches
from clip_eval.report.plots import linear
from clip_eval.report.probe import probe_sweep
from clip_eval.report.provenance import provenance
from clip_eval.report.results import boards, models_of, read_results
from clip_eval.report.robustness import shifts
from clip_eval.report.summary import averages, summary_rows
from clip_eval.report.training import training_facts
from clip_eval.training_log import TrainingLog
from report_cases import MODELS, Writer, proportion, write_showcase

NAMES = ("cat", "dog", "owl")


def loaded(folder: Path) -> Any:
    results = read_results(read_records(folder))
    return results, boards(results), models_of(results)


@pytest.mark.parametrize(
    ("name", "details", "expected"),
    [
        ("acc1", {"classes": [{}] * 4}, 0.25),
        ("lp_acc5", {"classes": [{}] * 4}, 1.0),
        ("mean_per_class_recall", {"classes": [{}] * 8}, 0.125),
        ("image_retrieval_recall@5", {"images": 50, "captions": 250}, 0.1),
        ("text_retrieval_recall@1", {"images": 50, "captions": 250}, 0.02),
        ("text_retrieval_recall@5", {"images": 50, "captions": 250}, None),
        ("text_retrieval_recall@5", {"images": 50, "captions": 50}, 0.1),
        ("acc", {"chance": {"acc": 0.5}}, 0.5),
        ("CIDEr", {}, None),
    ],
)
def test_chance(name: str, details: dict[str, Any], expected: float | None) -> None:
    found = chance_level(name, {"details": details, "dataset": {"name": "mine"}})
    assert found == (None if expected is None else pytest.approx(expected))


def test_numbers_in_words() -> None:
    number = read_number("acc1", proportion(0.75, 400, optimistic=0.76, pessimistic=0.74), 0.5)
    assert number.text == "75.0 %"
    assert number.normalised == pytest.approx(0.5)
    assert number.bounds == "74.0 % to 76.0 %, depending on how ties fall"
    assert words("text_retrieval_recall@7").label == "Image to text, R@7"
    assert words("something_new").label == "something new"
    assert [signed(value) for value in (0.0123, -0.0004, -0.05)] == ["+1.2", "0.0", "\N{MINUS SIGN}5.0"]
    for damaged in ("0.5", math.nan, None):
        with pytest.raises((ValueError, TypeError)):
            read_number("acc1", proportion(0.75, 400, value=damaged))


def test_averages_count_data_sets_once_and_above_chance(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    writer.write("a", "zero_shot_classification", {"acc1": proportion(0.55, 100)}, {"classes": [{"name": "x"}] * 10})
    recall = {"image_retrieval_recall@1": proportion(0.2, 100), "text_retrieval_recall@1": proportion(0.4, 100)}
    writer.write("b", "retrieval", recall, {"images": 100, "captions": 100})
    _, tables, models = loaded(tmp_path)
    (average,) = averages(tables, models)
    assert average.value == pytest.approx((0.55 + 0.3) / 2)
    assert average.normalised == pytest.approx((0.5 + (0.19 / 0.99 + 0.39 / 0.99) / 2) / 2)
    halves = [(metric["high"] - metric["low"]) / 2 for metric in (proportion(0.55, 100), proportion(0.4, 100))]
    assert average.half == pytest.approx(math.hypot(*halves) / 2)


def test_only_like_stands_beside_like(tmp_path: Path) -> None:
    first, second = Writer(tmp_path, MODELS[0]), Writer(tmp_path, MODELS[1])
    details = {"classes": [{"name": "x"}] * 10}
    for writer, settings in ((first, {"t": 1}), (second, {"t": 1}), (second, {"t": 2})):
        writer.write("a", "zero_shot_classification", {"acc1": proportion(0.5, 50)}, details, settings=settings)
    _, tables, models = loaded(tmp_path)
    assert sorted(len(board.results) for board in tables) == [1, 2]
    rows = summary_rows(tables, models)
    assert sorted(sum(cell is not None for cell in row.cells) for row in rows) == [1, 2]
    assert len({row.title for row in rows}) == 2


def test_robustness_is_the_published_line(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    for name, value in (("imagenet1k", 0.6), ("imagenet-r", 0.7)):
        writer.classification(name, NAMES, value, 3000, pictures=False)
    results, tables, _ = loaded(tmp_path)
    (shift,) = shifts(tables)
    values = {result.data["dataset"]["name"]: result.numbers["acc1"].value for result in results}
    expected = fit_robustness("imagenet-r").expected(values["imagenet1k"])
    assert shift.standings[0].expected == pytest.approx(expected)
    assert shift.standings[0].effective.startswith(signed(values["imagenet-r"] - expected))
    assert len(shift.plot.dots) == len(shift.fit.points) + 1
    Writer(tmp_path / "other").classification("imagenet-r", NAMES, 0.7, 300, pictures=False)
    assert shifts(loaded(tmp_path / "other")[1]) == []


def test_classes_and_confusions() -> None:
    classes = [{"name": f"class {n}", "n": 10, "recall": n / 40, "low": 0.0, "high": 1.0} for n in range(40)]
    classes[7] |= {"n": 0, "recall": None, "low": None, "high": None}
    table = class_table({"classes": classes})
    assert table is not None
    assert [row["name"] for row in table.worst[:2]] == ["class 0", "class 1"]
    assert [row["name"] for row in table.best[:2]] == ["class 39", "class 38"]
    assert table.empty == 1
    assert len(table.whole) == 40
    few = {"classes": classes[:2], "confusion": [[3, 1], [2, 0]]}
    assert matrix(few) is not None
    assert [(pair["truth"], pair["count"], pair["of"]) for pair in confusions(few) or []] == [
        ("class 1", 2, 2),
        ("class 0", 1, 4),
    ]
    with pytest.raises(ValueError, match="does not fit"):
        matrix({"classes": classes[:3], "confusion": [[3, 1], [2, 0]]})
    assert class_table({"classes": 10}) is None


def test_groups_and_categories() -> None:
    entry = {"name": "Africa", "n": 9, "value": 0.5, "low": 0.2, "high": 0.8, "key": "acc_top5_region:0"}
    (table,) = group_tables({"groups": {"region": [entry]}})
    assert (table.title, table.metric) == ("By region", "Within the first 5")
    (table,) = group_tables({"categories": {"swap_obj": {"acc": proportion(0.6, 20)}}})
    assert table.rows[0]["name"] == "swap_obj"
    assert group_tables({}) == []


def test_reliability_and_sweep(tmp_path: Path) -> None:
    bins = [
        {"low": 0.0, "high": 0.5, "n": 30, "confidence": 0.4, "accuracy": 0.3},
        {"low": 0.5, "high": 1.0, "n": 0, "confidence": None, "accuracy": None},
    ]
    details = {"calibration": {"expected_calibration_error": proportion(0.1, 30), "bins": bins}}
    diagram = reliability(details)
    assert diagram is not None
    assert diagram.verdict == "On average it is too sure of itself: it claims 40.0 % and is right in 30.0 %."
    assert len(diagram.plot.bars) == 1
    assert reliability({}) is None
    results, _, _ = loaded(Writer(tmp_path).probe().parent)
    sweep = probe_sweep(results[0].details)
    assert sweep is not None
    assert [dot.style for dot in sweep.plot.dots].count("chosen") == 2
    assert probe_sweep({"runs": [{"seed": 0, "weight_decay": 1.0, "sweep": None}]}) is None


def test_axes_hold_what_they_show() -> None:
    plot = linear(x=(0, 10), y=(0, 1), x_label="x", y_label="y", description="d")
    assert (plot.x(0), plot.x(10)) == (plot.left, plot.right)
    assert (plot.y(0), plot.y(1)) == (plot.bottom, plot.top)
    assert plot.x(99) == plot.right


def test_pictures_and_searches(tmp_path: Path) -> None:
    path = Writer(tmp_path).retrieval()
    results, _, _ = loaded(tmp_path)
    found = searches(results[0], 12)
    assert [search.found for search in found] == sorted(search.found for search in found)
    assert all((search.wanted is None) == any(one["right"] for one in search.answers) for search in found)
    assert galleries(results[0], [], 5) is None
    data = json.loads(path.read_text())
    for wrong in ("../../../etc/passwd", -1, True, 1.0):
        data["details"]["searches"][0]["answers"][0]["image"] = wrong
        path.write_text(json.dumps(data))
        with pytest.raises(DataError, match="not a whole number from 0"):
            render_report(tmp_path)


def test_other_tools_have_columns(tmp_path: Path) -> None:
    old = tmp_path / "old.csv"
    old.write_text("acc1,dataset,model,pretrained,task\n0.6332,imagenet1k,ViT-B-32,openai,zeroshot_classification\n")
    Writer(tmp_path / "results").classification("imagenet1k", NAMES, 0.6, 300, pictures=False)
    (column,) = other_columns([old])
    _, tables, models = loaded(tmp_path / "results")
    (row,) = summary_rows(tables, models, [column])
    assert [cell.text for cell in row.cells if cell is not None][1] == "63.3 %"
    page = render_report(tmp_path / "results", others=[old])
    assert "CLIP_\u200bbenchmark" in page


def test_duels_and_provenance(tmp_path: Path) -> None:
    results, _, models = loaded(write_showcase(tmp_path, MODELS[:2]))
    (duel,) = duels(results, models)
    assert {outcome.verdict for outcome in duel.outcomes} <= {"better", "worse", "within noise", "not comparable"}
    assert [outcome.reason for outcome in duel.outcomes if outcome.verdict == "not comparable"] == [
        "different exclusions"
    ]
    facts = dict(provenance(results[0]))
    assert facts["Command"].startswith("clip-eval run")
    assert "8 processes" in facts["Device"]


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("metrics", "acc1", "value"), "</style><b>"),
        (("metrics", "acc1", "low"), [0.1]),
        (("metrics",), {}),
        (("model", "parameters"), "many"),
        (("details", "classes", 0, "recall"), "half"),
        (("details", "confusion"), [[1]]),
        (("details", "calibration", "bins"), 5),
        (("dataset", "about"), ["no", "object"]),
        (("seconds", "total"), "soon"),
        (("ties",), {"acc1": "x"}),
    ],
)
def test_a_damaged_record_is_named(tmp_path: Path, place: tuple[Any, ...], value: Any) -> None:
    path = Writer(tmp_path).classification("mine", NAMES, 0.6, 300, pictures=False)
    data = json.loads(path.read_text())
    part = data
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    path.write_text(json.dumps(data))
    with pytest.raises(DataError, match=path.name):
        render_report(tmp_path)


def test_training_facts_without_speeds() -> None:
    log = TrainingLog("run", {}, [{"step": 1, "loss": 2.0}, {"step": 2, "loss": None}], cut=False)
    assert ("Steps whose loss was not a number", "1") in training_facts(log)["facts"]


def test_the_command_wants_somewhere_to_write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from clip_eval.cli import main

    assert callable(add)
    folder = str(Writer(tmp_path / "results").multilabel().parent)
    assert main(["report", "--results", folder]) == 2
    assert "--output" in capsys.readouterr().err
    assert main(["report", "--results", folder, "--figures", str(tmp_path / "figures")]) == 0
    assert Path(capsys.readouterr().out.split()[0]).name == "results.png"
