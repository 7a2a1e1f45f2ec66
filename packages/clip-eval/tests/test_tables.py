"""Tables of results: what stands in them, the peers' columns, and the command that prints them."""

from __future__ import annotations

import argparse
import builtins
import csv
import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clip_core import command
from clip_eval import evaluate, open_dataset
from clip_eval.catalogue import find
from clip_eval.commands import table
from clip_eval.records.averages import average, main_score, official_score
from clip_eval.records.overview import format_score, overview
from clip_eval.records.peer_tables import OPEN_CLIP_COLUMNS
from clip_eval.records.readers import read_rows
from clip_eval.records.rows import Score
from clip_eval.records.tables import COLUMNS, tidy

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """`run(*words)`: exit code, stdout and stderr of `clip-eval table`."""

    def call(*words: object) -> tuple[int, str, str]:
        parser = argparse.ArgumentParser(prog="clip-eval")
        table.add(parser.add_subparsers(required=True))
        options = parser.parse_args(["table", *map(str, words)])
        code = command.run(lambda: options.action(options), "clip-eval")
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def old(folder: Path, dataset: str, model: str = "ViT-B-32", tag: str = "openai", **metrics: float) -> Path:
    """A result file of CLIP_benchmark."""
    folder.mkdir(exist_ok=True)
    task = "zeroshot_retrieval" if any("retrieval" in name for name in metrics) else "zeroshot_classification"
    data = {"dataset": dataset, "model": model, "pretrained": tag, "task": task, "metrics": metrics, "language": "en"}
    path = folder / f"{dataset.replace('/', '_')}_{model}_{tag}.json"
    path.write_text(json.dumps(data))
    return path


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "old"
    for tag, shift in (("openai", 0.0), ("laion2b", 0.05)):
        old(folder, "vtab/cifar10", tag=tag, acc1=0.8983 + shift, acc5=0.99, mean_per_class_recall=0.8983 + shift)
        old(folder, "fgvc_aircraft", tag=tag, acc1=0.19 + shift, mean_per_class_recall=0.195 + shift)
        recalls = {"image_retrieval_recall@1": 0.58 + shift, "text_retrieval_recall@1": 0.78 + shift}
        old(folder, "flickr30k", tag=tag, **recalls)
    return folder


@pytest.fixture
def record(bundle, make_classification, tmp_path: Path) -> Path:
    dataset = open_dataset(make_classification())
    return evaluate(bundle, dataset, model_name="tiny:mine").save(tmp_path / "ours")


def test_one_line_for_each_number(results: Path, record: Path, run: Run) -> None:
    code, out, _ = run(results, record, "--format", "csv")
    assert code == 0
    lines = list(csv.DictReader(io.StringIO(out)))
    assert tuple(lines[0]) == COLUMNS
    rows = read_rows([results, record])
    assert len(lines) == sum(len(row.metrics) for row in rows)
    ours = next(line for line in lines if line["source"] == "clip-eval" and line["metric"] == "acc1")
    data = json.loads(record.read_text())
    for column in ("value", "low", "high", "optimistic", "pessimistic"):
        assert float(ours[column]) == data["metrics"]["acc1"][column]
    assert ours["weights_sha256"] == data["model"]["weights_sha256"]
    assert (ours["model"], ours["pretrained"], ours["precision"]) == ("tiny", "mine", "float32")
    assert ours["torch"] == data["versions"]["torch"]
    unknown = next(line for line in lines if line["metric"] == "mean_per_class_recall" and not line["weights_sha256"])
    assert unknown["low"] == unknown["n"] == unknown["precision"] == ""
    _, again, _ = run(results, record, "--format", "csv")
    assert again == out
    _, few, _ = run(results, "--format", "csv", "--columns", "value,dataset", "--metrics", "acc1")
    assert few.splitlines()[0] == "value,dataset"
    assert len(few.splitlines()) == 1 + 4


def test_parquet_says_the_same(results: Path, record: Path, run: Run, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    code, out, _ = run(results, record, "--format", "parquet", "-o", tmp_path / "new" / "x.parquet")
    assert (code, out) == (0, f"{tmp_path / 'new' / 'x.parquet'}\n")
    assert parquet.read_table(tmp_path / "new" / "x.parquet").to_pylist() == tidy(read_rows([results, record]))


def test_parquet_without_pyarrow(results: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    code, _, err = run(results, "--format", "parquet", "-o", tmp_path / "x.parquet")
    assert code == 2
    assert "clip-eval[parquet]" in err


def test_for_people(results: Path, run: Run) -> None:
    code, out, _ = run(results, "--width", 100)
    assert code == 0
    lines = out.splitlines()
    assert all(len(line) <= 100 for line in lines)
    assert "ViT-B-32" in lines[0]
    assert lines[1].split() == ["laion2b", "openai"]
    cifar = next(line for line in lines if line.startswith("CIFAR-10 "))
    assert cifar.split()[:3] == ["CIFAR-10", "acc1", "10000"]
    assert "89.8 (89.2-90.4)" in cifar
    # The main metric of aircraft is the mean over classes, without an interval from a bare number.
    assert next(line for line in lines if line.startswith("FGVC")).split()[2:] == ["mean", "recall", "24.5", "19.5"]
    flickr = [line for line in lines if line.startswith("Flickr")]
    assert [line.split()[1:4] for line in flickr] == [["to", "image", "R@1"], ["to", "text", "R@1"]]
    mean = (0.8983 + 0.195 + (0.58 + 0.78) / 2) / 3
    assert next(line for line in lines if line.startswith("average of 3")).split()[-1] == f"{100 * mean:.1f}"
    _, narrow, _ = run(results, "--width", 60)
    assert narrow.count("data set") == 2
    _, only, _ = run(results, "--model", "ViT-B-32:openai", "--digits", 2)
    assert "laion2b" not in only
    assert "89.83 (89.22-90.41)" in only


def test_markdown_is_a_table(results: Path, run: Run, tmp_path: Path) -> None:
    _, out, _ = run(results, "--format", "md", "-o", tmp_path / "x.md", "--width", 200)
    assert out == f"{tmp_path / 'x.md'}\n"
    block = (tmp_path / "x.md").read_text().split("\n\n")[0].splitlines()
    assert all(line.count("|") == 6 for line in block)
    assert "ViT-B-32:openai" in block[0]
    assert set(block[1]) <= set("|-:")


def test_origins_stand_beside_each_other(record: Path, tmp_path: Path, run: Run) -> None:
    old(tmp_path / "x", "animals", model="tiny", tag="mine", acc1=0.5)
    _, out, _ = run(record, tmp_path / "x", "--width", 100)
    lines = out.splitlines()
    assert lines[2].split() == ["[clip-eval]", "[CLIP_benchmark]"]
    assert next(line for line in lines if line.startswith("animals")).split()[-1] == "50.0"


def test_settings_languages_and_splits_are_told_apart(record: Path, tmp_path: Path, run: Run) -> None:
    data = json.loads(record.read_text())
    data.pop("prompts", None)
    data["details"] |= {"templates": ["{c}"], "prompts": None}
    record.with_name("other.json").write_text(json.dumps(data))
    _, out, _ = run(record.parent)
    names = [line.split("  ")[0] for line in out.splitlines() if line.startswith("animals")]
    assert len(names) == len(set(names)) == 2
    path = tmp_path / "shots.csv"
    head = "dataset,model,pretrained,task,lp_acc1,fewshot_k,weight_decay"
    path.write_text(f"{head}\nmnist,a,x,linear_probe,0.5,4,0.1\nmnist,a,x,linear_probe,0.9,-1,0.2\n"
                    "mnist,b,x,linear_probe,0.6,4,0.3\n")  # fmt: skip
    _, out, _ = run(path)
    few, whole = [line for line in out.splitlines() if line.startswith("MNIST")]
    assert few.startswith("MNIST, 4 shots, ")
    assert "shots" not in whole
    assert "50.0" in few
    assert "60.0" in few
    path = tmp_path / "zh.csv"
    path.write_text("dataset,model,pretrained,task,language,acc1\nmnist,a,b,t,en,0.5\nmnist,a,b,t,zh,0.25\n")
    _, out, _ = run(path)
    assert [line.split("  ")[0] for line in out.splitlines() if line.startswith("MNIST")] == ["MNIST, en", "MNIST, zh"]


def test_notes_say_what_ties_leave_and_what_was_left_out(record: Path, run: Run) -> None:
    data = json.loads(record.read_text())
    _, out, _ = run(record)
    assert "Ties" not in out
    assert "Left out" not in out
    data["metrics"]["acc1"] |= {"pessimistic": 0.25, "optimistic": 0.75}
    data["dataset"]["excluded"]["count"] = 3
    record.write_text(json.dumps(data))
    _, out, _ = run(record)
    assert "Ties: animals, acc1 of tiny:mine lies between 25.0 and 75.0." in out
    assert "Left out: 3 images of animals for tiny:mine" in out


def test_suites_choose_order_and_average(results: Path, run: Run) -> None:
    _, out, _ = run(results, "--suite", "datacomp")
    names = [line.split("  ")[0] for line in out.splitlines() if line and not line.startswith(" ")]
    assert names.index("FGVC Aircraft") < names.index("CIFAR-10")
    assert "average" not in out
    code, _, err = run(results, "--suite", "compositional")
    assert code == 2
    assert "None of the results" in err


def test_clip_benchmarks_columns(results: Path, record: Path, run: Run) -> None:
    _, out, _ = run(results, record, "--peer", "clip_benchmark")
    lines = list(csv.DictReader(io.StringIO(out)))
    assert list(lines[0])[:11] == [
        *("acc1", "acc5", "mean_per_class_recall", "dataset", "model", "pretrained", "task"),
        *("mean_average_precision", "image_retrieval_recall@5", "text_retrieval_recall@5", "model_fullname"),
    ]
    assert len(lines) == 7
    flickr = next(line for line in lines if line["dataset"] == "flickr30k")
    assert (flickr["task"], flickr["acc1"]) == ("zeroshot_retrieval", "")
    assert flickr["model_fullname"] == f"ViT-B-32 {flickr['pretrained']}"


def test_what_was_written_for_a_peer_is_read_back(results: Path, run: Run, tmp_path: Path) -> None:
    rows = {(row.dataset, row.model_name): row.metrics for row in read_rows([results])}
    run(results, "--peer", "clip_benchmark", "-o", tmp_path / "b.csv")
    assert {(row.dataset, row.model_name): row.metrics for row in read_rows([tmp_path / "b.csv"])} == rows
    run(results, "--peer", "datacomp", "--model", "ViT-B-32:openai", "-o", tmp_path / "eval_results.jsonl")
    back = {row.dataset: row for row in read_rows([tmp_path / "eval_results.jsonl"])}
    assert back["vtab/cifar10"].metrics == rows["vtab/cifar10", "ViT-B-32:openai"]
    lines = [json.loads(line) for line in (tmp_path / "eval_results.jsonl").read_text().splitlines()]
    mains = {line["key"]: line["metrics"]["main_metric"] for line in lines}
    assert mains == {
        "cifar10": 0.8983,
        "fgvc_aircraft": 0.195,
        "retrieval/flickr_1k_test_image_text_retrieval": pytest.approx(0.68),
    }
    run(results, "--peer", "open_clip", "-o", tmp_path / "o.csv")
    scores = {(row.dataset, row.model_name): row.metrics for row in read_rows([tmp_path / "o.csv"])}
    assert scores["flickr30k", "ViT-B-32:laion2b"]["mean_recall@1"].value == pytest.approx(0.73)
    code, _, err = run(results, "--peer", "datacomp")
    assert code == 2
    assert "--model" in err


def test_open_clips_columns(results: Path, record: Path, run: Run, tmp_path: Path) -> None:
    assert len(set(OPEN_CLIP_COLUMNS)) == 38
    entries = [find(title) for title in OPEN_CLIP_COLUMNS]
    assert [entry.title for entry in entries] == list(OPEN_CLIP_COLUMNS)
    assert all(entry.datacomp and entry.scored for entry in entries)
    _, out, _ = run(results, record, "--peer", "open_clip")
    lines = list(csv.DictReader(io.StringIO(out)))
    mine = next(line for line in lines if line["name"] == "tiny")
    parameters = json.loads(record.read_text())["model"]["parameters"]
    assert mine["params (M)"] == f"{parameters / 1e6:.2f}"
    assert all(line["Average perf. on 38 datasets"] == "" for line in lines)
    values = {title: (place + 1) / 100 for place, title in enumerate(OPEN_CLIP_COLUMNS)}
    whole = tmp_path / "whole.csv"
    head = ",".join(["name", "pretrained", *values])
    whole.write_text(f"{head}\nlow,x,{','.join(f'{v / 2:.4f}' for v in values.values())}\n"
                     f"high,x,{','.join(f'{v:.4f}' for v in values.values())}\n")  # fmt: skip
    _, out, _ = run(whole, "--peer", "open_clip")
    first, second = csv.DictReader(io.StringIO(out))
    assert (first["name"], second["name"]) == ("high", "low")
    assert first["Average perf. on 38 datasets"] == f"{sum(values.values()) / 38:.4f}"
    assert [first[title] for title in OPEN_CLIP_COLUMNS] == [f"{value:.4f}" for value in values.values()]


def test_averages(results: Path) -> None:
    rows = {(row.dataset, row.pretrained): row for row in read_rows([results])}
    flickr = rows["flickr30k", "openai"]
    joined = main_score(flickr)
    assert joined is not None
    assert joined == official_score(flickr)
    assert joined.value == pytest.approx(0.68)
    parts = list(flickr.metrics.values())
    assert joined.high - joined.low == pytest.approx(sum(part.high - part.low for part in parts) / 2)
    assert official_score(rows["fgvc_aircraft", "openai"]).value == 0.195
    same = average([Score(value=0.5, low=0.4, high=0.6)] * 4)
    assert (same.value, same.low, same.high) == (0.5, pytest.approx(0.45), pytest.approx(0.55))
    assert average([Score(value=0.5, low=0.4, high=0.6), Score(value=0.7)]) == Score(value=0.6)
    assert math.isclose(average([Score(value=0.1)]).value, 0.1)


def test_format() -> None:
    assert format_score(None, share=True) == "-"
    assert format_score(Score(value=0.5), share=True) == "50.0"
    assert format_score(Score(value=3, low=2, high=5.5), share=False) == "3.0 (2.0-5.5)"
    assert overview([]).splitlines()[0].split() == ["data", "set", "metric", "N"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--columns", "value,colour"], "no column 'colour'"),
        (["--metrics", "acc7"], "metric 'acc7'"),
        (["--model", "RN50"], "model 'RN50'"),
        (["--format", "parquet"], "--output"),
        (["--suite", "vtap"], "no suite"),
        (["--output", "/proc/none/x.md"], "cannot be written"),
    ],
)
def test_mistakes_are_answered(results: Path, run: Run, words: list[str], message: str) -> None:
    code, out, err = run(results, *words)
    assert (code, out) == (2, "")
    assert message in err
