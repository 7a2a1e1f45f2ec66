"""Model cards: everything in them is from files, what is not known is said to be, and the Hub understands the head."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image

import clip_core
from clip_core.errors import ConfigError, DataError
from clip_hub.card import (
    CardFacts,
    Description,
    Row,
    check_card,
    draw,
    find_epochs,
    find_run,
    read_curves,
    read_rows,
    weights_sha256,
    write_card,
)
from clip_hub.card.command import training_command
from clip_hub.card.snippets import snippets
from clip_hub.cli import main
from clip_hub.publish import push
from clip_hub.publish_commands import describe

REPO = "someone/my-clip"
CONFIG = {
    "data": {"train_data": "/data/{00..07}.tar", "train_num_samples": None, "aug_cfg": {"scale": [0.9, 1.0]}},
    "model": {"model": "tiny", "pretrained": ""},
    "optim": {"batch_size": 128, "lr": 0.002, "siglip": False},
    "run": {"device": "cpu", "precision": "fp32", "name": "trial", "debug": True},
}


def metric(value: float, low: float, high: float) -> dict[str, Any]:
    return {"value": value, "n": 360, "low": low, "high": high, "interval": "Wilson"}


def record(sha256: str) -> dict[str, Any]:
    return {
        "schema": 1,
        "task": "zero_shot_classification",
        "metrics": {"acc1": metric(0.9806, 0.9604, 0.9905), "median": metric(3, 1, 7)},
        "model": {"weights_sha256": sha256},
        "dataset": {
            "name": "digits",
            "split": "test",
            "about": {"title": "Handwritten digits", "notes": ["Held out."]},
        },
        "precision": {"model": "float32"},
        "device": "cpu",
        "versions": {"torch": "9.8.7"},
    }


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A training run as clip-train leaves one, with a record of clip-eval."""
    run = tmp_path / "runs" / "trial"
    bundle = clip_core.create("tiny")
    clip_core.save(bundle, run / "bundle")
    (run / "config.json").write_text(json.dumps(CONFIG))
    steps = [{"step": step, "loss": 5 / step, "zero_shot_acc1": step / 60} for step in range(1, 41)]
    steps[20]["loss"] = None
    (run / "metrics.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps) + '{"step": 41, "lo')
    (run / "summary.json").write_text(
        json.dumps({"steps": 40, "samples": 20000, "samples_seen": 5120, "skipped_samples": 3})
    )
    (run / "out.log").write_text("a log")
    (run / "eval").mkdir()
    (run / "eval" / "digits.json").write_text(json.dumps(record(weights_sha256(bundle.model.state_dict()))))
    (run / "eval" / "digits.samples.jsonl").write_text("{}")
    return run


def facts(**fields: Any) -> CardFacts:
    known = {
        "repo": REPO,
        "config": clip_core.get_config("tiny"),
        "parameters": 5_350_753,
        "precision": "float32",
        "layouts": {"bundle": "a.safetensors", "open_clip": "a.safetensors", "transformers": "model.safetensors"},
        "missing": {},
    }
    return CardFacts(**{**known, **fields})


def test_a_run_is_published_with_its_settings_results_and_figures(hub: Any, run_folder: Path) -> None:
    pytest.importorskip("matplotlib")
    said = Description(licence="mit", languages=("en",), training_data="Scans of digits.", authors="A. Nonymous")
    done = push(run_folder, REPO, token=hub.token, description=said)
    names = {file.name for file in done.plan.files}
    assert {"evaluation/digits.json", "figures/loss.png", "figures/zero_shot.png", "figures/results.png"} <= names
    assert sorted(done.plan.left_out) == ["eval/digits.samples.jsonl", "out.log"]
    assert sorted(done.plan.in_card) == ["config.json", "metrics.jsonl", "summary.json"]
    shown = describe(
        dataclasses.replace(done.plan, left_out=[*done.plan.left_out, *(f"eval/i/{n}.png" for n in "abc")])
    )
    assert "In the card, and not uploaded themselves: config.json, metrics.jsonl, summary.json" in shown
    assert "Not uploaded: eval/digits.samples.jsonl, out.log, eval/i/ (3 files)" in shown
    card = hub.files[REPO, "README.md"].decode()
    for part in (
        "Scans of digits.", "A. Nonymous", "`.../{00..07}.tar`, 20,000 pairs", "--batch-size 128 \\",
        "MIT License (`mit`)",
        "It began with random", "The captions were in English.", "from random weights on 5,120 pairs of 20,000",
        "accuracy on Handwritten digits is 98.06 %", "resized until they cover 32 x 32 pixels, then cut to the centre",
        "| pairs that could not be read | 3 |",
        "| digits (test) | zero-shot classification | accuracy | 98.06 | 96.04 – 99.05 |",
        "| median | 3 | 1 – 7 | 360 |", "Handwritten digits", "Held out.", "torch 9.8.7", "IMPORTANT", "5.35 M",
        "figures/loss.png",
    ):  # fmt: skip
        assert part in card, part
    data = ModelCard(card).data
    assert (data.license, data.language, data.tags) == ("mit", ["en"], ["zero-shot-image-classification", "clip"])
    assert "`/data" not in card
    assert "'/data" not in card
    assert (
        card.index("Value, %") < card.index("Ranks and other numbers, which are no shares") < card.index("| median |")
    )
    result, median = data.eval_results
    assert (result.dataset_type, result.dataset_name, result.metric_type) == (
        "digits",
        "Handwritten digits",
        "accuracy",
    )
    assert (result.metric_value, median.metric_value) == (0.9806, 3)
    assert all({"src", "candidate_labels"} <= set(example) for example in data.widget)


def test_every_entry_of_the_table_of_contents_leads_somewhere() -> None:
    text = write_card(facts(description=Description(acknowledgements="Thanks.")))
    links = re.findall(r"^\d+\. \[(.*)\]\(#(.*)\)$", text, re.MULTILINE)
    assert [title for title, _ in links][:4] == ["Model Details", "Uses", "Training Details", "Evaluation"]
    for title, anchor in links:
        assert f"\n# {title}\n" in text
        assert anchor == title.lower().replace(" ", "-")
    assert len(links) == len(re.findall(r"^# ", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)) - 2


def test_what_is_not_known_is_not_made_up() -> None:
    text = write_card(facts())
    data = ModelCard(text).data.to_dict()
    assert not {"license", "language", "base_model", "model-index", "datasets"} & set(data)
    assert "not stated; without one nobody has the right" in text
    assert "This repository was made from finished weights" in text or "made from finished weights" in text
    assert "No results: this model was published without evaluation records" in text
    assert "Acknowledgements" not in text
    assert "None" not in text


def test_the_registrys_tag_that_a_run_began_with_is_its_base_model(run_folder: Path) -> None:
    run = find_run(run_folder)
    assert run is not None
    for pretrained, base in (("laion2b_s34b_b79k", "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"), ("some/folder", None)):
        config = {**CONFIG, "model": {"model": "ViT-B-32", "pretrained": pretrained}}
        text = write_card(facts(run=dataclasses.replace(run, config=config)))
        assert ModelCard(text).data.to_dict().get("base_model") == base
        assert f"It began with the weights `{pretrained}`." in text


def test_sigmoid_models_give_each_label_its_own_probability() -> None:
    config = dataclasses.replace(clip_core.get_config("tiny"), logit_bias=-10.0)
    for layout, code in snippets(facts(config=config)).items():
        assert "logits.sigmoid()" in code
        assert "softmax" not in code
        assert ("+ model.logit_bias" in code) == (layout == "open_clip")
    text = write_card(facts(config=config))
    assert "Sigmoid Loss" in text
    assert "siglip" in ModelCard(text).data.tags


def test_results_of_other_weights_are_refused(tmp_path: Path) -> None:
    state = clip_core.create_model("tiny").state_dict()
    path = tmp_path / "digits.json"
    path.write_text(json.dumps(record(weights_sha256(state))))
    (row, _) = read_rows([path], state)
    assert (row.value, row.low, row.is_share, row.count) == (0.9806, 0.9604, True, 360)
    with pytest.raises(DataError, match="measured with other weights"):
        read_rows([path], {**state, "logit_scale": torch.tensor(1.0)})
    # The same weights, run in bfloat16.
    half = record(weights_sha256(state, "bfloat16"))
    half["precision"]["model"] = "bfloat16"
    path.write_text(json.dumps(half))
    assert len(read_rows([path], state)) == 2
    for broken, message in (({"schema": 1}, "no evaluation record"), ({"schema": 1, "metrics": {"a": 1}}, "damaged")):
        path.write_text(json.dumps(broken))
        with pytest.raises(DataError, match=message):
            read_rows([path], state)


def test_a_run_that_did_not_finish_and_a_damaged_one(run_folder: Path) -> None:
    run = find_run(run_folder)
    assert run is not None
    assert len(run.steps) == 40  # the line that was cut does not count
    (run_folder / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": "two"}\n')
    with pytest.raises(DataError, match="line 2 is no record"):
        find_run(run_folder)
    (run_folder / "bundle").rename(run_folder / "elsewhere")
    with pytest.raises(ConfigError, match="without a bundle"):
        find_run(run_folder)
    assert find_run(run_folder / "elsewhere") is None


def test_the_command_has_every_setting() -> None:
    settings = {name: value for group in CONFIG.values() for name, value in group.items()}
    assert training_command(settings).split(" \\\n    ") == [
        "clip-train",
        "--train-data '.../{00..07}.tar'",
        "--aug-cfg 'scale=(0.9, 1.0)'",
        "--model tiny",
        "--batch-size 128",
        "--lr 0.002",
        "--device cpu",
        "--precision fp32",
        "--name trial",
        "--debug",
    ]


def test_figures_are_pictures_of_the_numbers(run_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    run = find_run(run_folder)
    assert run is not None
    first = draw(tmp_path / "a", run, [])
    assert [path.name for path in first] == ["loss.png", "zero_shot.png"]
    for path in first:
        with Image.open(path) as image:
            assert image.format == "PNG"
            assert image.width >= 1000
            assert len(image.convert("RGB").getcolors(1 << 24) or []) > 20
    again = draw(tmp_path / "b", run, [])
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]
    changed = dataclasses.replace(run, steps=[{**step, "loss": 1.0} for step in run.steps])
    assert draw(tmp_path / "c", changed, [])[0].read_bytes() != first[0].read_bytes()
    assert draw(tmp_path / "d", None, []) == []


def epochs(run_folder: Path, **changes: Any) -> None:
    """Records of clip-eval after the epochs 2, 4 and 10 of a run, of weights that are gone."""
    for epoch in (2, 4, 10):
        told = {**record("of other weights"), **changes}
        told["metrics"] = {"acc1": metric(epoch / 20, epoch / 20 - 0.05, epoch / 20 + 0.05)}
        (run_folder / "eval" / f"epoch_{epoch}").mkdir(exist_ok=True)
        name = f"digits.{told['dataset'].get('shards_sha256', '')}.json"
        (run_folder / "eval" / f"epoch_{epoch}" / name).write_text(json.dumps(told))


def test_records_by_epoch_are_the_curve_of_a_run(run_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    run = find_run(run_folder)
    by_step = draw(tmp_path / "a", run, [])[1]
    epochs(run_folder)
    assert list(find_epochs(run_folder)) == [2, 4, 10]
    curves = read_curves(find_epochs(run_folder))
    assert {name: [(epoch, row.value) for epoch, row in points] for name, points in curves.items()} == {
        "digits: accuracy": [(2, 0.1), (4, 0.2), (10, 0.5)]
    }
    by_epoch = draw(tmp_path / "b", run, [], curves)[1]
    assert by_epoch.name == by_step.name == "zero_shot.png"
    assert by_epoch.read_bytes() != by_step.read_bytes()
    # What was measured on other shards is a curve of its own.
    epochs(run_folder, dataset={"name": "digits", "split": "test", "shards_sha256": "other"})
    assert sorted(read_curves(find_epochs(run_folder))) == ["digits: accuracy (1)", "digits: accuracy (2)"]
    (run_folder / "eval" / "epoch_2" / "x.json").write_text("{}")
    with pytest.raises(DataError, match="x.json is no evaluation record of schema 1"):
        read_curves(find_epochs(run_folder))


def test_a_run_with_records_by_epoch_is_published_with_its_curve(hub: Any, run_folder: Path) -> None:
    pytest.importorskip("matplotlib")
    epochs(run_folder)
    told = json.loads((run_folder / "eval" / "digits.json").read_text())
    told["command"] = "/srv/alice/bin/clip-eval run --model '/srv/John Doe/b'"
    (run_folder / "eval" / "digits.json").write_text(json.dumps(told))
    done = push(run_folder, REPO, token=hub.token)
    names = {file.name for file in done.plan.files}
    assert {"figures/zero_shot.png", "evaluation/digits.json"} <= names
    assert not any("epoch_" in name for name in names)
    published = json.loads(hub.files[REPO, "evaluation/digits.json"])
    assert published.pop("command") == ".../clip-eval run --model .../b"
    told.pop("command")
    assert published == told
    assert "Results over the run" in hub.files[REPO, "README.md"].decode()


def test_every_metric_of_clip_eval_has_words_and_is_known_to_be_a_share() -> None:
    for name, words, share in (
        ("image_retrieval_recall@3", "text → image, recall@3", True),
        ("text_retrieval_median_rank", "image → text, median rank", False),
        ("jaccard_score_10-12", "Jaccard index, 10 to 12 candidates", True),
        ("acc_wg", "accuracy of the worst group", True),
        ("something_new", "something new", False),
        ("acc10", "accuracy in the first 10", True),
        ("lp_acc3", "accuracy of the probe in the first 3", True),
        ("CIDEr", "CIDEr", False),
    ):
        low, high = (0.0, 1.0) if share else (1.0, 9.0)
        row = Row(
            dataset="a", split="b", task="linear_probe", metric=name, value=low, low=low, high=high, count=1, about={},
            versions={}, device="", precision="",
        )  # fmt: skip
        assert (row.metric_name, row.is_share, row.task_name) == (words, share, "linear probe")


def test_without_matplotlib_a_card_has_no_figures_and_says_how_to_get_them(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: Any
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigError, match=re.escape("pip install 'clip-hub[card]'")):
        draw(run_folder, None, [])
    assert main(["card", str(run_folder), REPO]) == 0
    assert "figures/" not in capsys.readouterr().out
    assert "clip-hub[card]" in caplog.text


def test_a_card_is_written_beside_its_figures_and_never_over_another(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    target = tmp_path / "out" / "README.md"
    assert main(["card", str(run_folder), REPO, "--output", str(target), "--title", "My CLIP"]) == 0
    assert capsys.readouterr().out.strip() == str(target)
    text = target.read_text()
    check_card(text)
    assert "# Model card for My CLIP" in text
    for name in re.findall(r"\]\((figures/.*)\)", text):
        assert (target.parent / name).is_file()
    assert main(["card", str(run_folder), REPO, "--output", str(target)]) == 2
    assert "is there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("---\na: [\n---\n", "is not valid"),
        ("---\nlicense: perhaps\n---\n", "the licence 'perhaps'"),
        ("---\nwidget: cat\n---\n", "widget 'cat'; allowed: a list"),
    ],
)
def test_heads_that_the_hub_would_refuse(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_card(text)


def test_what_a_person_says_is_checked() -> None:
    with pytest.raises(ConfigError, match="licence is 'MIT-ish'"):
        Description(licence="MIT-ish")
    with pytest.raises(ConfigError, match="languages has 'english'"):
        Description(languages=("english",))
