"""Results of other tools as rows: what is in them comes over, what is missing stays missing, what is wrong is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from clip_core.errors import DataError
from clip_eval import evaluate, open_dataset
from clip_eval.metrics import wilson
from clip_eval.records.readers import read_rows
from clip_eval.records.rows import Score, is_share, lower_is_better, main_metrics, split_model

CLASSIFICATION = {
    "dataset": "wds/vtab/cifar10",
    "model": "ViT-B-32",
    "pretrained": "openai",
    "task": "zeroshot_classification",
    "metrics": {"acc1": 0.8983, "acc5": 0.9959, "mean_per_class_recall": 0.8981},
    "language": "en",
}


def write(path: Path, *lines: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return path


def test_clip_benchmarks_json(tmp_path: Path) -> None:
    (row,) = read_rows([write(tmp_path / "a.json", CLASSIFICATION)])
    assert (row.dataset, row.task, row.language) == ("vtab/cifar10", "zero_shot_classification", "en")
    assert (row.model_name, row.source) == ("ViT-B-32:openai", "CLIP_benchmark")
    assert set(row.metrics) == {"acc1", "acc5", "mean_per_class_recall"}
    acc1 = row.metrics["acc1"]
    assert (acc1.value, acc1.n) == (0.8983, 10_000)
    assert (acc1.low, acc1.high) == wilson(0.8983, 10_000)
    # The classes' counts are not in the file, so the mean over classes has no interval.
    assert row.metrics["mean_per_class_recall"] == Score(value=0.8981)


def test_bare_nan_and_null_are_missing(tmp_path: Path) -> None:
    text = json.dumps(CLASSIFICATION).replace("0.9959", "NaN").replace("0.8981", "null")
    (row,) = read_rows([write(tmp_path / "a.json", text)])
    assert set(row.metrics) == {"acc1"}


def test_a_failed_run_of_clip_benchmark_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path / "a.json", CLASSIFICATION)
    failed = write(tmp_path / "b.json", {**CLASSIFICATION, "metrics": None})
    assert len(read_rows([tmp_path])) == 1
    assert "b.json: without metrics" in caplog.text
    with pytest.raises(DataError, match="holds no result"):
        read_rows([failed])


def test_settings_of_a_probe_are_no_metrics(tmp_path: Path) -> None:
    metrics = {"lp_acc1": 0.5, "weight_decay": 0.01, "epochs": 10, "seed": 0, "fewshot_k": -1, "normalized": True}
    (row,) = read_rows([write(tmp_path / "a.json", {**CLASSIFICATION, "task": "linear_probe", "metrics": metrics})])
    assert set(row.metrics) == {"lp_acc1"}
    # The weight decay is what the probe found, not what it was asked.
    assert row.settings == {"epochs": 10, "seed": 0, "fewshot_k": -1, "normalized": True}


def test_clip_benchmarks_table(tmp_path: Path) -> None:
    path = write(
        tmp_path / "benchmark.csv",
        "acc1,dataset,model,pretrained,task,image_retrieval_recall@5,text_retrieval_recall@5,model_fullname",
        "0.63,imagenet1k,ViT-B-32,openai,zeroshot_classification,,,ViT-B-32 openai",
        ",flickr30k,ViT-B-32,openai,zeroshot_retrieval,0.8356,0.949,ViT-B-32 openai",
        "0.2,my_set,ViT-B-32,openai,zeroshot_classification,,,ViT-B-32 openai",
    )
    imagenet, flickr, mine = read_rows([path])
    assert imagenet.metrics["acc1"].n == 50_000
    assert set(flickr.metrics) == {"image_retrieval_recall@5", "text_retrieval_recall@5"}
    captions, images = (flickr.metrics[f"{kind}_retrieval_recall@5"] for kind in ("image", "text"))
    assert (captions.n, images.n) == (5000, 1000)
    # Captions of one image are not independent: as many as there are images count.
    assert (captions.low, captions.high) == wilson(0.8356, 1000)
    assert "one query for each image" in captions.interval
    assert mine.metrics == {"acc1": Score(value=0.2)}


def test_datacomps_lines(tmp_path: Path) -> None:
    path = write(
        tmp_path / "small-run" / "eval_results.jsonl",
        {"key": "vtab/caltech101", "dataset": "Caltech-101", "metrics": {"acc1": 0.8, "acc5": 0.9,
         "mean_per_class_recall": 0.85, "main_metric": 0.85}},
        {"key": "fairness/geode", "dataset": "GeoDE", "metrics": {"main_metric": 0.7}},
        {"key": "fairness/utkface", "dataset": "UTKFace", "metrics": {"acc_race_avg": 0.5, "main_metric": None}},
        {"key": "misc/winogavil", "dataset": "WinoGAViL", "metrics": {"avg_jaccard_score": 0.4, "main_metric": 0.41}},
        {"key": "retrieval/flickr_1k_test_image_text_retrieval", "dataset": "Flickr",
         "metrics": {"image_retrieval_recall@1": 0.5, "text_retrieval_recall@1": 0.7, "mean_recall@1": 0.6,
                     "main_metric": 0.6}},
    )  # fmt: skip
    rows = {row.dataset: row for row in read_rows([path])}
    assert set(rows) == {"vtab/caltech101", "fairness/geode", "fairness/utkface", "winogavil", "flickr30k"}
    assert {row.model_name for row in rows.values()} == {"small-run"}
    assert rows["fairness/geode"].metrics["acc_wg"].value == 0.7
    assert rows["winogavil"].task == "association"
    assert rows["winogavil"].metrics["jaccard_score_10-12"].value == 0.41
    assert rows["flickr30k"].task == "retrieval"
    assert main_metrics(tuple(rows["flickr30k"].metrics), "retrieval", rows["flickr30k"].entry) == (
        "image_retrieval_recall@1",
        "text_retrieval_recall@1",
    )
    assert "main_metric" not in rows["vtab/caltech101"].metrics


def test_open_clips_tables(tmp_path: Path) -> None:
    scores = write(
        tmp_path / "openclip_results.csv",
        "name,pretrained,params (M),FLOPs (B),Average perf. on 38 datasets,ImageNet 1k,Caltech-101,Flickr,WinoGAViL",
        "ViT-B-32,openai,151.28,14.78,0.5245,0.6332,0.8758,0.6884,0.4246",
    )
    rows = {row.dataset: row for row in read_rows([scores])}
    assert {name: tuple(row.metrics) for name, row in rows.items()} == {
        "imagenet1k": ("acc1",),
        "vtab/caltech101": ("mean_per_class_recall",),
        "flickr30k": ("mean_recall@1",),
        "winogavil": ("jaccard_score_10-12",),
    }
    retrieval = write(
        tmp_path / "openclip_retrieval_results.csv",
        "name,pretrained,Average score,Flickr image retr. R@1,Flickr text retr. R@10,WinoGAViL jaccard score 5-6",
        "ViT-B-32,openai,0.7,0.5878,0.982,0.5",
    )
    flickr, winogavil = read_rows([retrieval])
    assert {name: score.value for name, score in flickr.metrics.items()} == {
        "image_retrieval_recall@1": 0.5878,
        "text_retrieval_recall@10": 0.982,
    }
    assert set(winogavil.metrics) == {"jaccard_score_5-6"}
    languages = write(
        tmp_path / "openclip_multilingual_retrieval_results.csv",
        "model,version,avg,crossmodal3600 image_retrieval_recall@1 avg,crossmodal3600 image_retrieval_recall@1 ar",
        "nllb-clip-base,mrl,0.784,0.6079,0.5836",
    )
    (row,) = read_rows([languages])
    assert (row.dataset, row.language, row.model_name) == ("crossmodal3600", "ar", "nllb-clip-base:mrl")
    assert len(read_rows([tmp_path])) == len(rows) + 2 + 1


def test_open_clips_training(tmp_path: Path) -> None:
    path = write(
        tmp_path / "logs" / "my-run" / "checkpoints" / "results.jsonl",
        {"imagenet-zeroshot-val-top1": 0.1, "imagenet-zeroshot-val-top5": 0.3, "imagenetv2-zeroshot-val-top1": 0.05,
         "image_to_text_mean_rank": 30.0, "image_to_text_median_rank": 10.0, "image_to_text_R@1": 0.2,
         "text_to_image_R@5": 0.4, "clip_val_loss": 2.0, "epoch": 1, "num_samples": 500},
        {"imagenet-zeroshot-val-top1": 0.2, "epoch": 2},
    )  # fmt: skip
    rows = read_rows([path])
    assert {(row.model, row.pretrained, row.dataset) for row in rows} == {
        ("my-run", "epoch_1", "imagenet1k"),
        ("my-run", "epoch_1", "imagenetv2"),
        ("my-run", "epoch_1", "validation data of the training"),
        ("my-run", "epoch_2", "imagenet1k"),
    }
    own = next(row for row in rows if row.split == "val")
    assert own.task == "retrieval"
    assert {name: score.value for name, score in own.metrics.items()} == {
        "text_retrieval_mean_rank": 30.0,
        "text_retrieval_median_rank": 10.0,
        "text_retrieval_recall@1": 0.2,
        "image_retrieval_recall@5": 0.4,
    }


def test_records_stand_beside_them(bundle, make_classification, tmp_path: Path) -> None:
    record = evaluate(bundle, open_dataset(make_classification()), model_name="tiny:mine")
    record.save(tmp_path / "out")
    write(tmp_path / "out" / "old.json", CLASSIFICATION)
    (tmp_path / "out" / "notes.csv").write_text("a,b\n1,2\n")
    old, ours = sorted(read_rows([tmp_path / "out"]), key=lambda row: row.source)
    assert (ours.source, ours.model, ours.pretrained) == ("clip-eval", "tiny", "mine")
    assert ours.record is not None
    assert ours.metrics["acc1"].low == record.result.metrics["acc1"].low
    assert old.record is None


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.json", '{"name": "package"}', "unknown kind"),
        ("a.json", '{"schema": 1, ', "not readable JSON"),
        ("a.json", "[1, 2]", "unknown kind"),
        ("a.csv", "a,b\n1,2\n", "unknown kind"),
        ("a.csv", "", "unknown kind"),
        ("a.csv", "dataset,model,pretrained,task,acc1\nx,y,z,t\n", "line 2: has not as many cells"),
        ("a.csv", "dataset,model,pretrained,task,acc1\nx,y,z,t,high\n", "line 2: 'acc1' is 'high', not a number"),
        ("a.csv", 'dataset,model,pretrained,task,acc1\nx,y,z,t,"0.5\n', "not a readable table"),
        ("a.jsonl", '{"key": "mnist", "metrics": {"acc1": 0.5}}\n{"key": "mn', "line 2: not readable JSON"),
        ("a.jsonl", '{"key": "mnist", "metrics": {}}\n[]\n', "line 2: is list"),
        ("a.jsonl", '{"key": "mnist", "metrics": {}}\n{"key": "cars"}\n', "line 2: not a result of DataComp"),
        ("a.json", json.dumps({**CLASSIFICATION, "metrics": {"acc1": [1]}}), r"'acc1' is '\[1\]', not a number"),
        ("a.json", json.dumps({**CLASSIFICATION, "metrics": 3}), "'metrics' is int"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=words) as caught:
        read_rows([tmp_path / name])
    assert name in str(caught.value)


def test_missing_binary_and_empty_places(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_rows([tmp_path / "none.json"])
    (tmp_path / "a.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="cannot be read"):
        read_rows([tmp_path / "a.json"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no result"):
        read_rows([tmp_path / "empty"])


def test_what_is_known_of_names() -> None:
    assert split_model("ViT-B-32:openai") == ("ViT-B-32", "openai")
    assert split_model("hf-hub:org/name") == ("hf-hub:org/name", "")
    assert split_model("runs/demo") == ("runs/demo", "")
    assert is_share("acc1")
    assert not is_share("image_retrieval_median_rank")
    assert lower_is_better("image_retrieval_median_rank")
    assert not lower_is_better("acc1")
    assert main_metrics(("acc5", "acc1"), "zero_shot_classification", None) == ("acc1",)
    assert main_metrics(("text_retrieval_recall@5",), "retrieval", None) == ("text_retrieval_recall@5",)
    assert main_metrics(("Bleu_1", "CIDEr"), "captioning", None) == ("CIDEr",)
    assert main_metrics(("other",), "a task of its own", None) == ("other",)
    assert main_metrics((), "retrieval", None) == ()
