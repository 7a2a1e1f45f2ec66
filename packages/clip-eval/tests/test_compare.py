"""Two models on the same data sets: what differs, what is noise, and what cannot be compared at all."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import scipy.stats
import torch
from torch import Tensor

from clip_core import command
from clip_core.errors import ConfigError, DataError
from clip_eval.commands import compare as compare_command
from clip_eval.compare import average_difference, compare_rows
from clip_eval.metrics import Metric, wilson
from clip_eval.metrics.paired import compare_outcomes, holm
from clip_eval.records import Record
from clip_eval.records.matching import models_of, obstacle, unmatched
from clip_eval.records.readers import read_rows
from clip_eval.tasks.result import Outcomes, TaskResult
from clip_eval.wds import WdsDataset

Run = Callable[..., tuple[int, str, str]]
N = 400


def write_record(
    folder: Path,
    dataset: str,
    outcomes: Mapping[str, Tensor | Outcomes],
    *,
    model: str = "tiny:mine",
    task: str = "zero_shot_classification",
    classes: tuple[str, ...] = ("cat", "dog"),
    templates: tuple[str, ...] = ("{c}",),
    settings: Mapping[str, Any] | None = None,
    data: str = "data",
    excluded: int = 0,
    keep: bool = True,
    more: Mapping[str, Metric] | None = None,
) -> Path:
    """Writes a record whose metrics are the means of `outcomes`; without `keep` the outcomes are not written.

    model: its name, whose hash is that of its weights. data: what the hash of the shards is made of. more: further
    metrics, which have no outcomes.
    """
    kept = {
        name: values if isinstance(values, Outcomes) else Outcomes(values.float(), torch.arange(len(values)))
        for name, values in outcomes.items()
    }
    metrics = {}
    for name, entry in kept.items():
        value, n = float(entry.values.double().mean()), len(entry.values)
        low, high = wilson(min(1.0, max(0.0, value)), n)
        metrics[name] = Metric(value=value, n=n, low=low, high=high, interval="Wilson")
    result = TaskResult(
        task=task,
        metrics={**metrics, **(more or {})},
        ties={},
        details={"classes": [{"name": name} for name in classes], "templates": list(templates)} if classes else {},
        samples=[],
        outcomes=kept if keep else {},
        seconds_texts=0.0,
        seconds_metrics=0.0,
    )
    weights = hashlib.sha256(model.encode()).hexdigest()
    count = max((len(entry.values) for entry in kept.values()), default=1)
    return Record(
        result=result,
        dataset=WdsDataset(name=dataset, folder=folder, split="test", kind="classification", samples=()),
        excluded=(),
        facts={
            "model": {"name": model, "weights_sha256": weights, "config_sha256": "c" * 64, "parameters": 1_000_000},
            "dataset": {
                "name": dataset,
                "split": "test",
                "kind": "classification",
                "samples": count + excluded,
                "evaluated": count,
                "excluded": {"count": excluded, "sha256": f"{excluded}", "first": []},
                "shards_sha256": hashlib.sha256(data.encode()).hexdigest(),
                "about": None,
            },
            "precision": {"model": "float32"},
            "settings": {"language": None, "templates": list(templates), **(settings or {})},
        },
    ).save(folder)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """`run(*words)`: exit code, stdout and stderr of `clip-eval compare`."""

    def call(*words: object) -> tuple[int, str, str]:
        parser = argparse.ArgumentParser(prog="clip-eval")
        compare_command.add(parser.add_subparsers(required=True))
        options = parser.parse_args(["compare", *map(str, words)])
        code = command.run(lambda: options.action(options), "clip-eval")
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def hits(chance: float, seed: int = 0, count: int = N) -> Tensor:
    """Hits of a model on `count` images; a model with a higher chance gets all that one with a lower gets right."""
    return (torch.rand(count, generator=torch.Generator().manual_seed(seed)) < chance).float()


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """A and B on three sets: B is better on the first, nothing but noise on the second, worse on the third."""
    pairs = {"first": (0.5, 0.6), "second": (0.5, 0.505), "third": (0.6, 0.5)}
    for place, (dataset, chances) in enumerate(pairs.items()):
        for name, chance in zip("ab", chances, strict=True):
            write_record(tmp_path / name, dataset, {"acc1": hits(chance, place)}, model=f"tiny:{name}")
    return tmp_path / "a", tmp_path / "b"


def test_verdicts(folders: tuple[Path, Path]) -> None:
    a, b = (read_rows([folder]) for folder in folders)
    found = {entry.dataset: entry for entry in compare_rows(a, b)}
    assert {name: entry.verdict for name, entry in found.items()} == {
        "first": "B better",
        "second": "within noise",
        "third": "A better",
    }
    ps = []
    for place, (name, chances) in enumerate({"first": (0.5, 0.6), "second": (0.5, 0.505), "third": (0.6, 0.5)}.items()):
        one, two = (hits(chance, place) for chance in chances)
        entry = found[name]
        assert (entry.first.value, entry.second.value) == (
            pytest.approx(float(one.mean())),
            pytest.approx(float(two.mean())),
        )
        assert (entry.better, entry.worse) == (int((two > one).sum()), int((two < one).sum()))
        ps.append(scipy.stats.binomtest(entry.better, entry.better + entry.worse).pvalue)
        assert entry.p == pytest.approx(ps[-1])
        assert entry.test == "McNemar, exact"
        assert entry.low <= entry.difference <= entry.high
    assert [entry.adjusted for entry in found.values()] == pytest.approx(holm(ps))


def test_a_model_with_itself_never_differs(folders: tuple[Path, Path]) -> None:
    rows = read_rows([folders[0]])
    for entry in compare_rows(rows, rows):
        assert (entry.p, entry.difference, entry.verdict) == (1, 0, "within noise")
        assert entry.clusters == N


def test_holm_makes_a_small_difference_noise_among_many(tmp_path: Path) -> None:
    base, better = torch.zeros(50), torch.zeros(50)
    better[:7] = 1  # p = 2 / 2**7 = 0.0156
    for place in range(8):
        for name, values in (("a", base), ("b", better if place == 0 else base)):
            write_record(tmp_path / name, f"set{place}", {"acc1": values}, model=f"m:{name}")
    a, b = read_rows([tmp_path / "a"]), read_rows([tmp_path / "b"])
    assert compare_rows(a[:1], b[:1])[0].verdict == "B better"
    first = compare_rows(a, b)[0]
    assert first.verdict == "within noise"
    assert (first.p, first.adjusted) == (pytest.approx(2 / 2**7), pytest.approx(8 * 2 / 2**7))


def test_captions_of_one_image_are_drawn_together(tmp_path: Path) -> None:
    clusters = torch.arange(100).repeat_interleave(5)
    one, two = hits(0.5, 1, 500), hits(0.56, 2, 500)
    for name, values in (("a", one), ("b", two)):
        outcomes = {"image_retrieval_recall@1": Outcomes(values, clusters)}
        write_record(tmp_path / name, "pairs", outcomes, task="retrieval", classes=(), model=f"m:{name}")
    (entry,) = compare_rows(read_rows([tmp_path / "a"]), read_rows([tmp_path / "b"]), resamples=500, seed=3)
    expected = compare_outcomes(one, two, clusters, resamples=500, seed=3)
    assert (entry.low, entry.high, entry.p) == (expected.low, expected.high, expected.p)
    assert (entry.test, entry.clusters) == ("paired bootstrap", 100)


@pytest.mark.parametrize(
    ("reason", "changed"),
    [
        ("different data", {"contents_sha256": "b"}),
        ("different training data", {"learnt_from": {"train": {"shards_sha256": "b", "samples": 3}}}),
    ],
)
def test_the_data_are_more_than_the_shards(tmp_path: Path, reason: str, changed: dict[str, Any]) -> None:
    stated = {"contents_sha256": "a", "learnt_from": {"train": {"shards_sha256": "a", "samples": 3}}}
    rows = {}
    for name, facts in (("a", stated), ("b", stated | changed), ("older", {})):
        path = write_record(tmp_path / name, "animals", {"acc1": hits(0.2)}, model=f"m:{name}")
        data = json.loads(path.read_text())
        data["dataset"] |= facts
        path.write_text(json.dumps(data))
        (rows[name],) = read_rows([path])
    assert obstacle(rows["a"], rows["b"], ()) == reason
    assert obstacle(rows["a"], rows["a"], ()) == obstacle(rows["a"], rows["older"], ()) == ""


def test_what_cannot_be_compared(tmp_path: Path) -> None:
    changes = {
        "different prompts": {"templates": ("a photo of a {c}.",)},
        "different data": {"data": "other"},
        "different exclusions": {"excluded": 2, "data": "data"},
        "different settings: fewshot_k": {"settings": {"fewshot_k": 4}},
    }
    write_record(tmp_path / "a", "animals", {"acc1": hits(0.2)}, model="m:a", excluded=0)
    rows = read_rows([tmp_path / "a"])
    for place, (reason, change) in enumerate(changes.items()):
        count = N - change.get("excluded", 0)
        write_record(tmp_path / str(place), "animals", {"acc1": hits(0.9, count=count)}, model="m:b", **change)
        others = read_rows([tmp_path / str(place)])
        (entry,) = compare_rows(rows, others)
        assert (entry.verdict, entry.reason) == ("not comparable", reason)
        assert entry.p is entry.low is entry.difference is None
        allowed = compare_rows(rows, others, ignore=("prompts", "settings"))[0].verdict
        assert allowed == ("not comparable" if place in (1, 2) else "B better")
    with pytest.raises(ConfigError, match="'data' cannot be ignored; allowed: prompts, settings, language"):
        compare_rows(rows, rows, ignore=("data",))


def test_other_classes_are_other_prompts(tmp_path: Path) -> None:
    for name, classes in (("a", ("cat", "dog")), ("b", ("dog", "cat"))):
        write_record(tmp_path / name, "animals", {"acc1": hits(0.5)}, model=f"m:{name}", classes=classes)
    (entry,) = compare_rows(read_rows([tmp_path / "a"]), read_rows([tmp_path / "b"]))
    assert entry.reason == "different prompts"


def test_of_several_records_the_one_with_the_same_prompts_is_taken(tmp_path: Path) -> None:
    for templates, chance in ((("a {c}",), 0.3), (("{c}",), 0.5)):
        write_record(tmp_path / "a", "animals", {"acc1": hits(chance)}, model="m:a", templates=templates)
    for templates, chance in ((("{c}",), 0.7), (("the {c}",), 0.9)):
        write_record(tmp_path / "b", "animals", {"acc1": hits(chance)}, model="m:b", templates=templates)
    found = compare_rows(read_rows([tmp_path / "a"]), read_rows([tmp_path / "b"]))
    assert sorted(entry.verdict for entry in found) == ["B better", "not comparable"]
    good = next(entry for entry in found if entry.verdict == "B better")
    assert good.second.value == pytest.approx(0.7, abs=0.1)


def test_languages_are_never_mixed(tmp_path: Path) -> None:
    for name, language in (("a", "en"), ("b", "it")):
        settings = {"language": language}
        write_record(tmp_path / name, "animals", {"acc1": hits(0.5)}, model=f"m:{name}", settings=settings)
    a, b = read_rows([tmp_path / "a"]), read_rows([tmp_path / "b"])
    assert compare_rows(a, b) == []
    assert unmatched(a, b) == (["animals"], ["animals, it"], [])
    assert compare_rows(a, b, ignore=("language",))[0].verdict == "within noise"


def test_without_outcomes_the_test_is_unpaired_and_says_so(tmp_path: Path) -> None:
    for name, chance, keep in (("a", 0.5, False), ("b", 0.53, True)):
        write_record(tmp_path / name, "animals", {"acc1": hits(chance)}, model=f"m:{name}", keep=keep)
    write_record(tmp_path / "c", "animals", {"acc1": hits(0.5)}, model="m:c")
    a, b, c = (read_rows([tmp_path / name]) for name in "abc")
    (loose,), (tight,) = compare_rows(a, b), compare_rows(c, b)
    assert (loose.test, loose.verdict) == ("unpaired", "within noise")
    assert "unpaired" in loose.reason
    assert (tight.test, tight.verdict) == ("McNemar, exact", "B better")
    assert tight.high - tight.low < loose.high - loose.low


def test_ranks_are_better_when_lower(tmp_path: Path) -> None:
    for name, rank in (("a", 10.0), ("b", 4.0)):
        more = {"text_retrieval_median_rank": Metric(value=rank, n=N, low=rank - 1, high=rank + 1, interval="x")}
        write_record(tmp_path / name, "pairs", {}, task="retrieval", classes=(), model=f"m:{name}", more=more)
    (entry,) = compare_rows(read_rows([tmp_path / "a"]), read_rows([tmp_path / "b"]), metrics="all")
    assert (entry.difference, entry.verdict, entry.test) == (-6, "B better", "unpaired")


def test_results_of_other_tools(tmp_path: Path) -> None:
    head = "dataset,model,pretrained,task,acc1,mean_per_class_recall,image_retrieval_recall@5\n"
    (tmp_path / "a.csv").write_text(
        f"{head}imagenet1k,m,x,zeroshot_classification,0.60,,\nvtab/pets,m,x,zeroshot_classification,,0.8,\n"
        "vtab/svhn,m,x,zeroshot_classification,0.3,,\nmnist,m,x,zeroshot_classification,0.5,,\n"
        "flickr30k,m,x,zeroshot_retrieval,,,0.8\n"
    )
    (tmp_path / "o.csv").write_text("name,pretrained,ImageNet 1k,Oxford-IIIT Pet,SVHN,Flickr\nm,x,0.61,0.9,0.6,0.7\n")
    a, b = read_rows([tmp_path / "a.csv"]), read_rows([tmp_path / "o.csv"])
    found = {entry.dataset: entry for entry in compare_rows(a, b)}
    assert (found["imagenet1k"].verdict, found["imagenet1k"].test) == ("B better", "unpaired")
    assert (found["vtab/pets"].verdict, found["vtab/pets"].reason) == ("not tested", "no interval is known")
    # Two published tables disagree on SVHN by more than noise; their prompts must differ.
    assert found["vtab/svhn"].verdict == "not comparable"
    assert compare_rows(a, a)[2].verdict == "within noise"
    assert unmatched(a, b) == (["MNIST"], [], ["Flickr"])


def test_damaged_outcomes_are_named(folders: tuple[Path, Path]) -> None:
    path = next(folders[0].glob("first.*.json"))
    data = json.loads(path.read_text())
    data["metrics"]["acc1"]["value"] += 0.01
    path.write_text(json.dumps(data))
    a, b = (read_rows([folder]) for folder in folders)
    with pytest.raises(DataError, match="outcomes of acc1 have the mean"):
        compare_rows(a, b)


def test_the_average(folders: tuple[Path, Path]) -> None:
    found = compare_rows(*(read_rows([folder]) for folder in folders))
    mean = average_difference(found)
    assert mean is not None
    assert mean.title == "average of 3"
    assert mean.difference == pytest.approx(sum(entry.difference for entry in found) / 3)
    halves = [(entry.high - entry.low) / 2 for entry in found]
    assert (mean.high - mean.low) / 2 == pytest.approx(sum(half**2 for half in halves) ** 0.5 / 3, rel=0.05)
    assert mean.verdict == "within noise"
    assert average_difference(found[:1]) is None
    assert average_difference([dataclasses.replace(entry, main=False) for entry in found]) is None


def test_both_directions_of_retrieval_count_as_one_data_set(tmp_path: Path) -> None:
    for name, chance in (("a", 0.5), ("b", 0.7)):
        values = {f"{to}_retrieval_recall@1": hits(chance) for to in ("image", "text")}
        write_record(tmp_path / name, "pairs", values, task="retrieval", classes=(), model=f"m:{name}")
        write_record(tmp_path / name, "animals", {"acc1": hits(0.5)}, model=f"m:{name}")
    found = compare_rows(*(read_rows([tmp_path / name]) for name in "ab"))
    assert [entry.main for entry in found] == [True] * 3
    mean = average_difference(found)
    assert mean is not None
    assert (mean.title, mean.difference) == ("average of 2", pytest.approx(found[-1].difference / 2))


def test_tasks_of_one_data_set_are_told_apart(tmp_path: Path) -> None:
    for name in "ab":
        write_record(tmp_path / name, "animals", {"acc1": hits(0.5)}, model=f"m:{name}")
        write_record(tmp_path / name, "animals", {"lp_acc1": hits(0.6)}, model=f"m:{name}", task="linear_probe")
        write_record(tmp_path / name, "pairs", {"acc": hits(0.6)}, model=f"m:{name}", task="caption_choice")
    found = compare_rows(*(read_rows([tmp_path / name]) for name in "ab"))
    assert {(entry.title, entry.metric) for entry in found} == {
        ("animals", "acc1"),
        ("animals, linear probe", "lp_acc1"),
        ("pairs", "acc"),
    }
    mean = average_difference(found)
    assert mean is not None
    assert mean.title == "average of 3"


def test_models_of_one_name_are_told_apart(folders: tuple[Path, Path], tmp_path: Path) -> None:
    path = write_record(tmp_path / "a", "fourth", {"acc1": hits(0.5)}, model="tiny:a")
    data = json.loads(path.read_text())
    data["model"]["weights_sha256"] = "f" * 64
    path.write_text(json.dumps(data))
    names = [name for name, _ in models_of(read_rows([folders[0]]))]
    assert len(set(names)) == 2
    assert sum("ffffffffffff" in name for name in names) == 1
    assert [name for name, _ in models_of(read_rows([folders[1]]))] == ["tiny:b"]


def test_the_command(folders: tuple[Path, Path], run: Run) -> None:
    code, out, _ = run(*folders)
    assert code == 0
    lines = out.splitlines()
    assert lines[:2] == ["A  tiny:a", "B  tiny:b"]
    assert all(len(line) <= 120 for line in lines)
    first = next(line for line in lines if line.startswith("first"))
    assert first.endswith("B better")
    assert " to +" in first
    assert "Holm's correction over 3 tests" in out
    assert "McNemar, exact" in out
    assert "unpaired" not in out.casefold()
    assert run(*folders, "--fail-if-worse")[0] == 1
    assert run(folders[0], folders[0], "--fail-if-worse")[0] == 0
    assert run(*folders)[1] == out


def test_a_gate_without_any_test_is_not_passed(folders: tuple[Path, Path], tmp_path: Path, run: Run) -> None:
    other = tmp_path / "other"
    write_record(other, "first", {"acc1": hits(0.9)}, model="tiny:b", templates=("a photo of a {c}.",))
    code, _, err = run(folders[0], other, "--fail-if-worse", "--json")
    assert code == 2
    assert "could not be tested on any data set: different prompts" in err
    assert "only A has: second; third" in err
    assert run(folders[0], other)[0] == 0
    write_record(other, "second", {"acc1": hits(0.9)}, model="tiny:b")
    code, _, err = run(folders[0], other, "--fail-if-worse")
    assert code == 0
    assert "only A has: third" in err


def test_other_tools_on_the_command_line(tmp_path: Path, run: Run) -> None:
    head = "dataset,model,pretrained,task,acc1\n"
    (tmp_path / "a.csv").write_text(f"{head}imagenet1k,m,x,zeroshot_classification,0.60\n"
                                    "vtab/svhn,m,x,zeroshot_classification,0.3\n")  # fmt: skip
    (tmp_path / "b.csv").write_text("name,pretrained,ImageNet 1k,SVHN\nm,x,0.61,0.6\n")
    code, out, _ = run(tmp_path / "a.csv", tmp_path / "b.csv")
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == f"A  m:x ({tmp_path / 'a.csv'})"
    assert next(line for line in lines if line.startswith("ImageNet")).endswith("B better (unpaired)")
    assert next(line for line in lines if line.startswith("SVHN")).endswith("not comparable")
    assert any(line.startswith("SVHN is not comparable: two published tables") for line in lines)
    assert "Unpaired: what each query scored is not known" in out


def test_json_is_strict_and_says_the_same(folders: tuple[Path, Path], run: Run) -> None:
    code, out, _ = run(*folders, "--json")
    assert code == 0
    data = json.loads(out, parse_constant=pytest.fail)
    assert (data["a"], data["b"]) == ("tiny:a", "tiny:b")
    assert [entry["verdict"] for entry in data["comparisons"]] == ["B better", "within noise", "A better"]
    assert {"a", "b", "difference", "low", "high", "p", "adjusted", "test", "n"} <= set(data["comparisons"][0])
    assert data["average"]["title"] == "average of 3"
    assert data["only_a"] == data["only_b"] == data["no_common_metric"] == []


def test_two_models_of_one_folder(folders: tuple[Path, Path], tmp_path: Path, run: Run) -> None:
    both = tmp_path / "both"
    both.mkdir()
    for folder in folders:
        for path in folder.iterdir():
            if path.is_file():
                (both / path.name).write_bytes(path.read_bytes())
    assert run(both)[1] == run(*folders)[1]
    _, turned, _ = run(both, "--models", "tiny:b", "tiny:a")
    assert turned.splitlines()[:2] == ["A  tiny:b", "B  tiny:a"]
    assert next(line for line in turned.splitlines() if line.startswith("first")).endswith("A better")
    write_record(both, "first", {"acc1": hits(0.3)}, model="other")
    code, _, err = run(both)
    assert code == 2
    assert "holds 3 models: " in err
    assert "--models A B" in err
    code, _, err = run(both, folders[1])
    assert code == 2
    assert "say which one is compared" in err
    assert run(both, folders[1], "--models", "other", "tiny:b")[0] == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{a}", "{b}", "{a}"], "Two models are compared"),
        (["{a}"], "say which two"),
        (["{a}", "{b}", "--models", "RN50"], "no results of the model 'RN50'"),
        (["{a}", "{b}", "--ignore", "data"], "cannot be ignored"),
        (["{a}", "{b}", "--resamples", "10"], "need 100 or more"),
        (["{a}", "{b}", "--metrics", "acc7"], "no data set and metric in common"),
        (["{a}", "none"], "cannot be read"),
    ],
)
def test_mistakes_are_answered(folders: tuple[Path, Path], run: Run, words: list[str], message: str) -> None:
    code, out, err = run(*(word.format(a=folders[0], b=folders[1]) for word in words))
    assert (code, out) == (2, "")
    assert message in err
