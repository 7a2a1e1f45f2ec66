"""Evaluation while training: open_clip's numbers, clip-eval's records, and nothing disturbed."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import clip_core
from clip_core.errors import ConfigError, DataError
from clip_eval.processes import Ranks
from clip_hub.card.folder import find_epochs
from clip_hub.card.results import read_curves
from clip_train import TrainConfig, train
from clip_train.data.loader import Share
from clip_train.evaluating.class_folders import open_classes, open_imagenet
from clip_train.evaluating.turns import Evaluations
from clip_train.evaluating.validation import Validation, retrieval_metrics
from clip_train.measuring.split import Split
from clip_train.plan import Plan

Make = Callable[..., TrainConfig]


def records(folder: Path, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def classes(make: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three class folders with four images each."""
    folder = tmp_path_factory.mktemp("classes")
    for label, name in enumerate(("cat", "dog", "owl")):
        (folder / name).mkdir()
        for number in range(4):
            (folder / name / f"{number}.png").write_bytes(make.png(100 * label + number))
    return folder


@pytest.fixture(scope="module")
def shapes(make: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of clip-eval: twelve images of two classes in a shard."""
    folder = tmp_path_factory.mktemp("data") / "shapes"
    (folder / "test").mkdir(parents=True)
    (folder / "classnames.txt").write_text("round thing\nlong thing\n", encoding="utf-8")
    (folder / "zeroshot_classification_templates.txt").write_text("a photo of a {c}.\n", encoding="utf-8")
    (folder / "test" / "nshards.txt").write_text("1", encoding="utf-8")
    samples = [{"__key__": f"s{n:04d}", "png": make.png(n), "cls": str(n % 2).encode()} for n in range(12)]
    make.shard(folder / "test" / "0.tar", samples)
    return folder


def test_a_run_evaluates_after_epochs_and_learns_the_same(
    make_config: Make, make: Any, shards: str, classes: Path, shapes: Path, tmp_path: Path
) -> None:
    held_out = make.shard(tmp_path / "val.tar", [make.pair(n) for n in range(50, 63)])
    given = {
        "epochs": 3,
        "val_data": str(held_out),
        "imagenet_val": str(classes),
        "eval_data": (str(shapes),),
        "eval_share": 1.0,
    }
    plain = train(make_config(name="plain", epochs=3, force_patch_dropout=0.5))
    result = train(make_config(name="mine", **given, force_patch_dropout=0.5))
    assert [line["loss"] for line in records(result.folder)] == [line["loss"] for line in records(plain.folder)]
    lines = records(result.folder, "evaluations.jsonl")
    assert [(line["epoch"], line["step"], line["samples_seen"]) for line in lines] == [
        (1, 5, 40),
        (2, 10, 80),
        (3, 15, 120),
    ]
    # Every epoch, every second one and the last, every epoch as time allows.
    assert [("val/clip_val_loss" in line, "imagenet1k/acc1" in line, "shapes/acc1" in line) for line in lines] == [
        (True, False, True),
        (True, True, True),
        (True, True, True),
    ]
    last = lines[-1]
    assert last["val/imagenet-zeroshot-val-top1"] == last["imagenet1k/acc1"]
    assert last["val/num_samples"] == 13
    assert last["shapes/acc1_low"] <= last["shapes/acc1"] <= last["shapes/acc1_high"]
    epochs = find_epochs(result.folder)
    assert list(epochs) == [1, 2, 3]
    curves = read_curves(epochs)
    ((_, points),) = [(label, points) for label, points in curves.items() if label.startswith("shapes")]
    assert [epoch for epoch, _ in points] == [1, 2, 3]
    assert [row.value for _, row in points] == [line["shapes/acc1"] for line in lines]
    # The last one is of the weights that are in the bundle.
    bundle = clip_core.load(result.bundle)
    again = Validation(result.config).run(bundle, Ranks())
    assert again["clip_val_loss"] == pytest.approx(last["val/clip_val_loss"], rel=1e-6)
    assert "evaluated in" in (result.folder / "out.log").read_text(encoding="utf-8")


@pytest.mark.parity
def test_validation_gives_open_clips_numbers(make_config: Make, make: Any, tmp_path: Path) -> None:
    from open_clip_train.train import evaluate

    path = make.shard(tmp_path / "val.tar", [make.pair(n) for n in range(20)])
    config = make_config(val_data=str(path), batch_size=8)
    bundle = clip_core.create("tiny")
    found = Validation(config).run(bundle, Ranks())

    class Peer(torch.nn.Module):
        def forward(self, images: Any, texts: Any) -> dict[str, Any]:
            images, texts = bundle.model.encode_image(images, True), bundle.model.encode_text(texts, True)
            return {
                "image_features": images,
                "text_features": texts,
                "logit_scale": bundle.model.logit_scale.exp(),
            }

    import io

    import PIL.Image

    pairs = [make.pair(n) for n in range(20)]
    images = torch.stack([bundle.preprocess(PIL.Image.open(io.BytesIO(pair["png"]))) for pair in pairs])
    texts = bundle.tokenizer([pair["txt"].decode() for pair in pairs])
    batches = [(images[start : start + 8], texts[start : start + 8]) for start in (0, 8, 16)]
    loader = type("Loader", (list,), {"num_samples": 20})(batches)
    args = SimpleNamespace(
        rank=0, distributed=False, horovod=False, device="cpu", precision="fp32", val_frequency=1, epochs=1,
        save_logs=False, wandb=False, zeroshot_frequency=0,
    )  # fmt: skip
    theirs = evaluate(Peer(), {"val": SimpleNamespace(dataloader=loader)}, 1, args)
    for name, value in theirs.items():
        if name != "epoch":
            assert found[name] == pytest.approx(float(value), rel=1e-5), name


def test_bad_pairs_are_left_out_and_counted(make_config: Make, make: Any, tmp_path: Path) -> None:
    samples = [make.pair(n) for n in range(10)]
    samples[2]["png"] = b"torn"
    samples[9]["txt"] = b" "
    path = make.shard(tmp_path / "val.tar", samples)
    bundle = clip_core.create("tiny")
    found = Validation(make_config(val_data=str(path), batch_size=4)).run(bundle, Ranks())
    assert (found["num_samples"], found["skipped_samples"]) == (8, 2)
    first = Validation(make_config(val_data=str(path), batch_size=4, val_num_samples=2)).run(bundle, Ranks())
    assert first["num_samples"] == 2
    with pytest.raises(DataError):
        Validation(make_config(val_data=str(tmp_path / "no.tar")))


def test_ranks_are_those_of_a_sorted_row() -> None:
    generator = np.random.default_rng(0)
    images, texts = (
        torch.nn.functional.normalize(torch.tensor(generator.normal(size=(30, 8)), dtype=torch.float32), dim=1)
        for _ in range(2)
    )
    found = retrieval_metrics(images, texts, Ranks(), chunk=7)
    scores = (images.double() @ texts.double().T).numpy()
    for name, rows in (("image_to_text", scores), ("text_to_image", scores.T)):
        places = np.array([(row > row[number]).sum() for number, row in enumerate(rows)])
        assert found[f"{name}_mean_rank"] == pytest.approx(places.mean() + 1)
        assert found[f"{name}_median_rank"] == np.floor(np.median(places)) + 1
        for k in (1, 5, 10):
            assert found[f"{name}_R@{k}"] == pytest.approx(np.mean(places < k))


def test_class_folders_are_in_imagenets_order(classes: Path, shapes: Path, make: Any, tmp_path: Path) -> None:
    found = open_classes(classes, "imagenet1k")
    assert (found.classnames, found.labels) == (("cat", "dog", "owl"), (0,) * 4 + (1,) * 4 + (2,) * 4)
    assert len(found.templates) == 80
    for number in range(1000):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "a.JPEG").write_bytes(b"x")
    numbered = open_classes(tmp_path, "imagenetv2")
    assert numbered.labels == tuple(range(1000))
    assert [sample.key for sample in numbered.samples[:3]] == ["0/a", "1/a", "2/a"]
    assert numbered.classnames[0] == "tench"
    assert open_imagenet(str(shapes), "imagenet1k").classnames == ("round thing", "long thing")
    (tmp_path / "5" / "a.JPEG").unlink()
    with pytest.raises(DataError, match="5 holds no image"):
        open_classes(tmp_path, "imagenetv2")


def test_epochs_end_where_their_last_sample_is() -> None:
    config: Any = SimpleNamespace(optim=SimpleNamespace(epochs=3))
    missing: Any = None
    fields = dict.fromkeys((field.name for field in dataclasses.fields(Plan)), missing)
    plan = Plan(**{**fields, "config": config, "share": Share(8), "per_epoch": 20})
    assert [plan.epoch_ended_by(step) for step in range(1, 9)] == [None, None, 1, None, 2, None, None, 3]
    plan = dataclasses.replace(plan, per_epoch=3)
    assert [plan.epoch_ended_by(step) for step in (1, 2)] == [2, 3]


def test_what_cannot_be_evaluated_is_found_before_training(make_config: Make, classes: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="eval_share"):
        make_config(eval_share=0.0)
    (tmp_path / "empty").mkdir()
    with pytest.raises(clip_core.ClipError, match="no split 'test'"):
        train(make_config(eval_data=(str(tmp_path / "empty"),)))
    with pytest.raises(DataError, match="no folders of classes"):
        train(make_config(imagenet_val=str(tmp_path / "empty")))
    assert not (tmp_path / "logs").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="torch for Windows has no libuv")
def test_processes_evaluate_together_and_name_the_slowest(
    make_config: Make, make: Any, classes: Path, shapes: Path, tmp_path: Path
) -> None:
    held_out = make.shard(tmp_path / "val.tar", [make.pair(n) for n in range(50, 63)])
    config = make_config(
        name="two",
        epochs=2,
        batch_size=4,
        val_data=str(held_out),
        imagenet_val=str(classes),
        eval_data=(str(shapes),),
        eval_share=1.0,
        log_every_n_steps=4,
    )
    (tmp_path / "config.json").write_text(json.dumps(config.to_json()), encoding="utf-8")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*launcher, str(Path(__file__).parent / "seen_world.py"), str(tmp_path / "config.json")],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    folder = tmp_path / "logs" / "two"
    lines = records(folder, "evaluations.jsonl")
    assert [line["epoch"] for line in lines] == [1, 2]
    # The weights of the last evaluation are those of the bundle; alone they have the same numbers.
    bundle = clip_core.load(folder / "bundle")
    for name, value in Validation(config).run(bundle, Ranks()).items():
        assert lines[-1][f"val/{name}"] == pytest.approx(value, rel=1e-5), name
    assert list(find_epochs(folder)) == [1, 2]
    assert "imagenet1k/acc1" in lines[-1]
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert summary["processes_seconds"][1] > 0.1 > summary["processes_seconds"][0]
    assert "process 1 on" in (folder / "out.log").read_text(encoding="utf-8")
    named = [line for line in records(folder) if "slowest_rank" in line]
    assert {line["slowest_rank"] for line in named} == {1}
    # The first has nothing to do but wait for the second at the first exchange.
    split = Split(records(folder)[1:])
    assert split.loop["loss"] + split.loop["communication"] > 0.5 * 0.1 * split.steps


def test_a_step_is_saved_before_it_is_evaluated_and_evaluated_when_the_run_goes_on(
    make_config: Make, make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held_out = make.shard(tmp_path / "val.tar", [make.pair(n) for n in range(50, 58)])
    config = make_config(name="mine", epochs=2, val_data=str(held_out), resume="latest")

    def cut_short(*arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Validation, "run", cut_short)
        with pytest.raises(KeyboardInterrupt):
            train(config)
    folder = tmp_path / "logs" / "mine"
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["step-00000005"]
    train(config)
    expected = records(folder, "evaluations.jsonl")
    assert [(line["epoch"], line["step"]) for line in expected] == [(1, 5), (2, 10)]
    whole = train(make_config(epochs=2, val_data=str(held_out)))
    losses = [line["val/clip_val_loss"] for line in records(whole.folder, "evaluations.jsonl")]
    assert [line["val/clip_val_loss"] for line in expected] == losses
    # Nothing is lacking: nothing is evaluated again.
    train(config)
    assert records(folder, "evaluations.jsonl") == expected


def test_a_run_that_goes_on_takes_back_what_was_found_later(tmp_path: Path) -> None:
    lines = [json.dumps({"step": 5 * epoch, "epoch": epoch}) for epoch in (1, 2, 3)]
    # The last line was not finished when the run was killed.
    (tmp_path / "evaluations.jsonl").write_text("\n".join([*lines, '{"step": 2']), encoding="utf-8")
    for epoch in (1, 2, 3):
        (tmp_path / "eval" / f"epoch_{epoch}").mkdir(parents=True)
    service = Evaluations.__new__(Evaluations)
    service.begin(tmp_path, 12)
    assert [line["epoch"] for line in records(tmp_path, "evaluations.jsonl")] == [1, 2]
    assert sorted(place.name for place in (tmp_path / "eval").iterdir()) == ["epoch_1", "epoch_2"]
