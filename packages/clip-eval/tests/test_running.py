"""Many evaluations with one model, and CLIP_benchmark's command line for them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import clip_core
from clip_core import Bundle
from clip_core.errors import ConfigError, DataError
from clip_eval.cli import main
from clip_eval.encoder import Encoder
from clip_eval.evaluation import Options, evaluate, settings_of
from clip_eval.prompts import prompts_for
from clip_eval.records import SavedRecord, Score, read_rows
from clip_eval.records.matching import obstacle
from clip_eval.running import LanguageMissing, Wanted, open_selected, run
from clip_eval.selection import select
from clip_eval.store import FeatureStore
from clip_eval.wds import open_dataset

Make = Callable[..., Path]


@pytest.fixture
def encoder(bundle: Bundle, tmp_path: Path) -> Encoder:
    bundle.model.eval()
    return Encoder(bundle=bundle, store=FeatureStore(tmp_path / "features"))


def test_images_are_encoded_once_for_all_languages_and_tasks(
    encoder: Encoder, make_classification: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = tmp_path / "words"
    words.mkdir()
    for language, names in (("xx", ["un", "deux", "trois"]), ("yy", ["uno", "due", "tre"])):
        (words / f"{language}_classnames.json").write_text(json.dumps({"animals": names}))
        (words / f"{language}_zeroshot_classification_templates.json").write_text(json.dumps({"animals": ["{c}!"]}))
    calls: list[int] = []
    honest = type(encoder.bundle.model).encode_image
    monkeypatch.setattr(
        type(encoder.bundle.model), "encode_image", lambda *a, **k: calls.append(len(a[1])) or honest(*a, **k)
    )
    wanted = Wanted(languages=(None, "xx", "yy"), words=words)
    records = [record for _, record in run(encoder, select([str(make_classification())]), wanted, model_name="m")]
    assert sum(calls) == 4  # the pictures, once
    assert len({record.name for record in records}) == 3
    facts = records[0].facts["dataset"]  # type: ignore[union-attr]
    assert (facts["address"], facts["revision"]) == (None, None)  # a folder of this machine
    assert [record.facts["settings"]["language"] for record in records] == [None, "xx", "yy"]  # type: ignore[union-attr]
    assert [entry["name"] for entry in records[1].result.details["classes"]] == ["un", "deux", "trois"]  # type: ignore[union-attr]


def test_what_is_there_already_is_not_made_again(encoder: Encoder, make_classification: Make, tmp_path: Path) -> None:
    datasets, wanted = select([str(make_classification())]), Wanted()
    ((_, first),) = run(encoder, datasets, wanted, model_name="m", existing=tmp_path / "out")
    path = first.save(tmp_path / "out")  # type: ignore[union-attr]
    ((_, second),) = run(encoder, datasets, wanted, model_name="m", existing=tmp_path / "out")
    assert isinstance(second, SavedRecord)
    assert second.path == path
    other = Wanted(options=Options(templates=["{c}"]))
    ((_, third),) = run(encoder, datasets, other, model_name="m", existing=tmp_path / "out")
    assert not isinstance(third, SavedRecord)


def test_a_record_of_other_captions_or_training_images_is_not_taken(
    encoder: Encoder, make_classification: Make, make_retrieval: Make, png: Callable[..., bytes], tmp_path: Path
) -> None:
    def found(folder: Path, wanted: Wanted) -> bool:
        ((_, record),) = run(encoder, select([str(folder)]), wanted, model_name="m", existing=tmp_path / "out")
        if not isinstance(record, SavedRecord):
            record.save(tmp_path / "out")
        return isinstance(record, SavedRecord)

    pairs, wanted = make_retrieval(["a cat", "a dog"]), Wanted(languages=("de",))
    (pairs / "test" / "captions").mkdir()
    for texts in ("eine Katze\nein Hund\n", "ein Kater\nein Hund\n"):
        (pairs / "test" / "captions" / "de.txt").write_text(texts)
        assert [found(pairs, wanted), found(pairs, wanted)] == [False, True]
    wanted = Wanted(tasks=("linear_probe",))
    for first in (10, 50):
        animals = make_classification(["0", "1", "2"] * 8, images=[png(first + number) for number in range(24)])
        shutil.rmtree(animals / "train", ignore_errors=True)
        (animals / "test").rename(animals / "train")
        make_classification()
        assert [found(animals, wanted), found(animals, wanted)] == [False, True]


def test_a_task_is_left_out_where_it_does_not_fit(
    encoder: Encoder, make_classification: Make, make_retrieval: Make
) -> None:
    datasets = select([str(make_classification()), str(make_retrieval(["a cat", "a dog"]))])
    records = [record for _, record in run(encoder, datasets, Wanted(tasks=("retrieval",)), model_name="m")]
    assert [record.dataset.name for record in records] == ["pairs"]  # type: ignore[union-attr]


def test_a_task_that_fits_nothing_is_an_error(encoder: Encoder, make_classification: Make) -> None:
    datasets = select([str(make_classification())])
    with pytest.raises(ConfigError, match="--task retrieval captioning cannot be asked of animals"):
        list(run(encoder, datasets, Wanted(tasks=("retrieval", "captioning")), model_name="m"))


def test_packaged_words_that_occur_twice_are_taken_and_named(
    encoder: Encoder, make_classification: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Italian names of imagenet-a's 200 classes are not all different, and the English ones are."""
    italian = prompts_for("imagenet-a", "it")
    assert italian.classnames is not None
    assert len(set(italian.classnames)) < len(italian.classnames) == 200
    english = prompts_for("imagenet-a").classnames
    assert english is not None
    folder = make_classification(name="imagenet-a", classnames="\n".join(english) + "\n")
    wanted = Wanted(languages=("it",), any_size=True)
    ((_, record),) = run(encoder, select([str(folder)]), wanted, model_name="m")
    assert record.result.details["duplicate_classnames"]  # type: ignore[union-attr]


def test_doubled_words_of_ones_own_are_refused_unless_allowed(
    encoder: Encoder, make_classification: Make, tmp_path: Path
) -> None:
    words = tmp_path / "words"
    words.mkdir()
    (words / "xx_classnames.json").write_text(json.dumps({"animals": ["un", "un", "trois"]}))
    (words / "xx_zeroshot_classification_templates.json").write_text(json.dumps({"animals": ["{c}!"]}))
    datasets = select([str(make_classification())])
    with pytest.raises(DataError, match="--allow-duplicate-classes"):
        list(run(encoder, datasets, Wanted(languages=("xx",), words=words), model_name="m"))
    wanted = Wanted(languages=("xx",), words=words, allow_duplicate_classes=True)
    ((_, record),) = run(encoder, datasets, wanted, model_name="m")
    assert record.result.details["duplicate_classnames"][0]["name"] == "un"  # type: ignore[union-attr]


def test_every_question_of_a_set_of_ones_own_is_asked(encoder: Encoder, make_people: Make, tmp_path: Path) -> None:
    folder = make_people(about=False, test=6, train=24)
    with pytest.raises(DataError, match="metadata_fields"):
        list(run(encoder, select([str(folder)]), Wanted(), model_name="m"))
    (folder / "about.json").write_text(json.dumps({"metadata_fields": ["hat", "age"]}))
    records = [record for _, record in run(encoder, select([str(folder)]), Wanted(), model_name="m")]
    assert [record.facts["settings"]["objective"] for record in records] == ["hat", "age"]  # type: ignore[union-attr]
    assert [len(record.result.details["classes"]) for record in records] == [2, 3]  # type: ignore[union-attr]
    wanted = Wanted(tasks=("linear_probe",))
    records = [record for _, record in run(encoder, select([str(folder)]), wanted, model_name="m")]
    assert [len(record.result.details["classes"]) for record in records] == [2, 3]  # type: ignore[union-attr]


def test_probes_of_other_splits_are_other_records(make_classification: Make) -> None:
    classes = open_dataset(make_classification())
    plain = settings_of("linear_probe", classes, Options(), train_split="train")
    assert settings_of("linear_probe", classes, Options(), train_split="small") != plain
    assert settings_of("linear_probe", classes, Options(), train_split="train", validation_split="val") != plain


def test_a_set_of_another_kind_is_no_known_set_of_any_size(make_classification: Make) -> None:
    (selected,) = select([str(make_classification(name="mscoco_captions"))])
    with pytest.raises(DataError, match="is a retrieval set where its scores were published"):
        open_selected(selected, Wanted(any_size=True))


def test_a_known_set_of_another_size_is_refused(make_classification: Make) -> None:
    (selected,) = select([str(make_classification(name="mnist"))])
    with pytest.raises(DataError, match="10000"):
        open_selected(selected, Wanted())
    assert len(open_selected(selected, Wanted(any_size=True)).samples) == 4


def test_settings_tell_results_apart(make_classification: Make, make_retrieval: Make) -> None:
    classes, pairs = open_dataset(make_classification()), open_dataset(make_retrieval(["a cat", "a dog"]))
    plain = settings_of("zero_shot_classification", classes, Options())
    assert plain["templates"] == list(classes.templates)
    assert settings_of("zero_shot_classification", classes, Options(templates=["{c}"])) != plain
    assert settings_of("retrieval", pairs, Options(ks=(1,))) != settings_of("retrieval", pairs, Options())


def test_a_task_that_cannot_be_asked_names_those_that_can(bundle: Bundle, make_retrieval: Make) -> None:
    with pytest.raises(ConfigError, match="allowed for it: retrieval, captioning"):
        evaluate(bundle, open_dataset(make_retrieval(["a cat", "a dog"])), task="linear_probe")


def benchmark(folder: Path, *words: str) -> int:
    fixed = ["--dataset_root", f"{folder}/{{dataset}}", "--output", f"{folder}/{{dataset}}_{{language}}_{{task}}.json"]
    return main(["eval", *fixed, "--feature_root", str(folder / "features"), "--quiet", "--device", "cpu", *words])


def test_commands_of_clip_benchmark_write_its_files(
    bundle: Bundle, make_classification: Make, make_retrieval: Make, tmp_path: Path, capsys: Any
) -> None:
    clip_core.save(bundle, tmp_path / "weights")
    make_classification()
    make_retrieval(["a cat\na kitten", "a dog"])
    model = ["--model", "tiny", "--pretrained", str(tmp_path / "weights")]
    assert (
        benchmark(tmp_path, "--dataset", "animals", "pairs", *model, "--recall_k", "1", "2", "--dump_classnames") == 0
    )
    classes = json.loads((tmp_path / "animals_en_zeroshot_classification.json").read_text())
    assert set(classes) >= {"dataset", "model", "pretrained", "task", "metrics", "language", "classnames"}
    assert (classes["task"], classes["model"], classes["classnames"]) == (
        "zeroshot_classification",
        "tiny",
        ["cat", "dog", "owl"],
    )
    assert {"acc1", "mean_per_class_recall"} <= set(classes["metrics"])
    assert classes["clip_eval"]["metrics"]["acc1"]["n"] == 4
    pairs = json.loads((tmp_path / "pairs_en_zeroshot_retrieval.json").read_text())
    assert {"image_retrieval_recall@1", "text_retrieval_recall@2"} <= set(pairs["metrics"])
    # Its "build", which makes one table of the files.
    names = [
        str(tmp_path / f"{name}.json") for name in ("animals_en_zeroshot_classification", "pairs_en_zeroshot_retrieval")
    ]
    assert main(["build", *names, "--output", str(tmp_path / "benchmark.csv")]) == 0
    header, *lines = (tmp_path / "benchmark.csv").read_text().splitlines()
    assert len(lines) == 2
    assert {"acc1", "dataset", "model", "pretrained", "task", "model_fullname"} <= set(header.split(","))
    # Read back, a row has all that the record in it knows; one of a schema of another day is as CLIP_benchmark's.
    path = tmp_path / "animals_en_zeroshot_classification.json"
    (row,) = read_rows([path])
    stated = classes["clip_eval"]["metrics"]["acc1"]
    assert (row.source, row.split, row.dataset, row.model_name) == (
        "clip-eval",
        "test",
        "animals",
        f"tiny:{tmp_path / 'weights'}",
    )
    acc1 = row.metrics["acc1"]
    assert (acc1.value, acc1.n, acc1.low, acc1.high) == tuple(stated[key] for key in ("value", "n", "low", "high"))
    assert obstacle(row, row, ()) == ""
    other = tmp_path / "other.json"
    other.write_text(json.dumps({**classes, "clip_eval": {**classes["clip_eval"], "schema": 0}}))
    (plain,) = read_rows([other])
    assert (plain.source, plain.metrics["acc1"]) == ("CLIP_benchmark", Score(value=stated["value"]))
    moved = {**classes["clip_eval"], "dataset": {**classes["clip_eval"]["dataset"], "split": "small"}}
    other.write_text(json.dumps({**classes, "clip_eval": moved}))
    assert read_rows([other])[0].split == "small"
    capsys.readouterr()
    pairs_of_names = ["--pretrained_model", f"tiny,{tmp_path / 'weights'}"]
    assert benchmark(tmp_path, "--dataset", "animals", *pairs_of_names, "--skip_existing") == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--save_clf", "x.pt"], "--save_clf is not taken"),
        (["--model_type", "ja_clip"], "allowed: open_clip"),
        (["--normalize", "False"], "features have length 1"),
        (["--pretrained_model", "ViT-B-32"], "allowed: MODEL,TAG"),
        (["--dataset", "nowhere"], "no such data set folder"),
        *((["--output", word], "allowed: {model}") for word in ("{set}", "{}", "{dataset.x}", "{dataset[x]}", "{")),
        (["--task", "linear_probe", "--train_split", "a", "b"], "--train_split has 2 values for 1 data sets"),
    ],
)
def test_what_the_command_line_cannot_do_is_said(
    words: list[str], message: str, bundle: Bundle, make_classification: Make, tmp_path: Path, capsys: Any
) -> None:
    clip_core.save(bundle, tmp_path / "weights")
    make_classification()
    model = ["--model", "tiny", "--pretrained", str(tmp_path / "weights")]
    assert benchmark(tmp_path, "--dataset", "animals", *model, *words) == 2
    assert message in capsys.readouterr().err


def test_every_question_of_a_set_has_a_file_of_clip_benchmark(
    bundle: Bundle, make_people: Make, tmp_path: Path, capsys: Any
) -> None:
    clip_core.save(bundle, tmp_path / "weights")
    make_people()
    words = ["--dataset", "people", "--model", "tiny", "--pretrained", str(tmp_path / "weights")]
    assert benchmark(tmp_path, *words) == 0
    files = sorted(tmp_path.glob("people*.json"))
    assert [file.name.partition("_en_")[0] for file in files] == ["people_age", "people_hat"]
    asked = [json.loads(file.read_text())["clip_eval"]["settings"]["objective"] for file in files]
    assert asked == ["age", "hat"]
    capsys.readouterr()
    assert benchmark(tmp_path, *words, "--skip_existing") == 0
    assert capsys.readouterr().out == ""


def test_an_output_that_cannot_tell_results_apart_is_refused(
    make_classification: Make, tmp_path: Path, capsys: Any
) -> None:
    make_classification()
    make_classification(name="birds")
    words = ["--dataset", "animals", "birds", "--model", "tiny", "--pretrained", "w"]
    assert benchmark(tmp_path, *words, "--output", str(tmp_path / "{task}.json")) == 2
    assert "would write several results to" in capsys.readouterr().err


def test_a_split_for_each_data_set_stays_with_it_when_some_are_skipped(
    bundle: Bundle, make_classification: Make, tmp_path: Path
) -> None:
    clip_core.save(bundle, tmp_path / "weights")
    make_classification()
    make_classification(name="birds")
    words = ["--dataset", "animals", "birds", "--model", "tiny", "--pretrained", str(tmp_path / "weights")]
    (tmp_path / "birds_en_zeroshot_classification.json").write_text("{}")
    assert benchmark(tmp_path, *words, "--train_split", "a", "b", "--skip_existing") == 0
    assert (tmp_path / "animals_en_zeroshot_classification.json").stat().st_size > 100


def test_a_data_set_is_called_as_it_was_typed(
    bundle: Bundle, make_retrieval: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip_core.save(bundle, tmp_path / "weights")
    make_retrieval(["a cat", "a dog"], name="wds_mscoco_captions")
    monkeypatch.setattr("clip_eval.running.check_size", lambda *_, **__: None)
    words = ["--dataset", "wds/coco", "--model", "tiny", "--pretrained", str(tmp_path / "weights")]
    assert benchmark(tmp_path, *words, "--dataset_root", str(tmp_path)) == 0
    written = json.loads((tmp_path / "coco_en_zeroshot_retrieval.json").read_text())
    assert written["dataset"] == "wds/coco"
    assert written["clip_eval"]["dataset"]["name"] == "mscoco_captions"


def test_only_the_default_root_may_be_absent(tmp_path: Path, capsys: Any) -> None:
    words = ["--dataset", "mnist", "--dataset_root", str(tmp_path / "absent")]
    assert benchmark(tmp_path, *words) == 2
    assert "no such folder to look for data sets in" in capsys.readouterr().err


def test_a_set_without_the_language_is_left_out_and_said(
    encoder: Encoder, make_classification: Make, make_retrieval: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    animals, pairs = make_classification(), make_retrieval(["a cat", "a dog"])
    (pairs / "test" / "captions").mkdir()
    (pairs / "test" / "captions" / "ja.txt").write_text("neko\ninu\n")
    datasets = select([str(animals), str(pairs)])
    ((_, record),) = run(encoder, datasets, Wanted(languages=("ja",)), model_name="m")
    assert (record.result.task, record.facts["settings"]["language"]) == ("retrieval", "ja")  # type: ignore[union-attr]
    assert "animals is left out in 'ja': animals: there are no class names and templates in 'ja'" in caplog.text
    # What there is in the others is made before a language that nobody has ends it.
    made = run(encoder, datasets, Wanted(languages=("jp", None)), model_name="m")
    assert [next(made)[1].result.task for _ in datasets] == ["zero_shot_classification", "retrieval"]  # type: ignore[union-attr]
    with pytest.raises(LanguageMissing, match=r"--language jp: no data set has it.*animals: there are no"):
        next(made)
    with pytest.raises(LanguageMissing, match=r"pairs: has no captions in 'jp'; allowed: ja, or no language"):
        list(run(encoder, datasets[1:], Wanted(languages=("jp",)), model_name="m"))
    # So does CLIP_benchmark's command line.
    clip_core.save(encoder.bundle, tmp_path / "weights")
    words = ["--dataset", "animals", "pairs", "--model", "tiny", "--pretrained", str(tmp_path / "weights")]
    assert benchmark(tmp_path, *words, "--language", "ja") == 0
    assert [path.name for path in tmp_path.glob("*_ja_*.json")] == ["pairs_ja_zeroshot_retrieval.json"]
    assert benchmark(tmp_path, *words, "--language", "ja", "--skip_existing") == 0
    assert benchmark(tmp_path, *words, "--language", "jp") == 2


def test_clip_benchmarks_command_takes_doubled_names_and_says_what_they_cost(
    bundle: Bundle, make_classification: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clip_core.save(bundle, tmp_path / "weights")
    make_classification()
    make_classification(name="birds", classnames="owl\nowl\nlark\n")
    own = tmp_path / "names.json"
    own.write_text(json.dumps({"animals": ["un", "un", "trois"]}))
    words = ["--dataset", "animals", "birds", "--model", "tiny", "--pretrained", str(tmp_path / "weights")]
    assert benchmark(tmp_path, *words, "--custom_classname_file", str(own)) == 0
    for name, doubled in (("animals", "un"), ("birds", "owl")):
        assert (
            f"1 class name(s) stand for several classes, first {doubled!r}: 3 images are decided by lot" in caplog.text
        )
        record = json.loads((tmp_path / f"{name}_en_zeroshot_classification.json").read_text())["clip_eval"]
        acc1 = record["metrics"]["acc1"]
        # An image of a doubled name is right by half, where the model finds the name.
        assert acc1["pessimistic"] <= acc1["value"] <= acc1["optimistic"]
        assert acc1["value"] - acc1["pessimistic"] == acc1["optimistic"] - acc1["value"]
        assert [entry["name"] for entry in record["details"]["duplicate_classnames"]] == [doubled]
