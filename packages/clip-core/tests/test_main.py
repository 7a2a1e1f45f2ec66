"""The command line, run as a user runs it: `python -m clip_core`, and clip_core.command beneath it."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import PIL.Image
import pytest

import clip_core
from clip_core.__main__ import main


@pytest.fixture
def bundle_and_image(tmp_path: Path, tiny: clip_core.Bundle, photo: PIL.Image.Image) -> tuple[str, str]:
    clip_core.save(tiny, tmp_path / "bundle")
    photo.save(tmp_path / "photo.png")
    return str(tmp_path / "bundle"), str(tmp_path / "photo.png")


def test_classify_prints_probabilities_best_first(bundle_and_image, tiny, photo) -> None:
    import torch

    bundle, image = bundle_and_image
    texts = ["a cat", "a dog", "a\u2028strange text"]
    done = subprocess.run(
        [sys.executable, "-m", "clip_core", "classify", "--bundle", bundle, image, *texts],
        capture_output=True, text=True, encoding="utf-8",
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    rows = [line.split("\t") for line in done.stdout.rstrip("\n").split("\n")]
    with torch.no_grad():
        logits, _ = tiny.model.get_logits(tiny.preprocess(photo)[None], tiny.tokenizer(texts))
    expected = dict(zip(texts, logits.softmax(-1)[0].tolist(), strict=True))
    assert [text for _, text in rows] == sorted(texts, key=lambda text: -expected[text])
    for probability, text in rows:
        assert float(probability) == pytest.approx(expected[text], abs=1e-4)


def test_a_model_with_a_bias_judges_each_text_by_itself(tmp_path, tiny, photo, capsys) -> None:
    from clip_core.building import build

    config = dataclasses.replace(tiny.config, logit_bias=-10.0)
    clip_core.save(clip_core.Bundle.of(build(config)), tmp_path / "b")
    photo.save(tmp_path / "photo.png")
    assert main(["classify", "--bundle", str(tmp_path / "b"), str(tmp_path / "photo.png"), "a cat"]) == 0
    # One text alone has the probability 1 under softmax; an untrained model with this bias says nearly no.
    assert float(capsys.readouterr().out.split("\t")[0]) < 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("image", "missing.png"), "Cannot open image missing.png: there is no such file."),
        (("image", "."), ". is a folder; classify takes one image."),
        (("bundle", "missing"), "missing is not a bundle: there is no such folder"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(bundle_and_image, capsys, change, message) -> None:
    bundle, image = bundle_and_image
    if change[0] == "image":
        image = change[1]
    else:
        bundle = change[1]
    assert main(["classify", "--bundle", bundle, image, "a cat"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("python -m clip_core: error: ")
    assert message in captured.err


def test_weights_that_give_no_numbers_are_an_error(tmp_path, tiny, photo, capsys) -> None:
    import torch

    with torch.no_grad():
        tiny.model.text_projection.fill_(float("nan"))
    clip_core.save(tiny, tmp_path / "b")
    photo.save(tmp_path / "photo.png")
    assert main(["classify", "--bundle", str(tmp_path / "b"), str(tmp_path / "photo.png"), "a", "b"]) == 2
    assert "features that are not finite" in capsys.readouterr().err


def test_help_is_there(capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["classify", "--help"])
    assert stop.value.code == 0
    assert "--bundle DIR" in capsys.readouterr().out


def test_kernels_prints_what_a_model_runs_with(bundle_and_image, capsys) -> None:
    from clip_core.kernels import explain

    options = ["--architecture", "sm_90", "--precision", "bf16", "--training"]
    assert main(["kernels", "ViT-B-32", *options]) == 0
    said = capsys.readouterr().out
    assert said.startswith("On sm_90 in bfloat16, forward and backward:\n  image attention, 50 tokens")
    assert main(["kernels", "ViT-B-32", *options, "--device", "cuda:99"]) == 0  # the architecture stands in its place
    assert capsys.readouterr().out == said
    assert main(["kernels", bundle_and_image[0]]) == 0
    assert capsys.readouterr().out == explain(clip_core.get_config("tiny")) + "\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["ViT-B-33"], "Unknown model 'ViT-B-33'"),
        (["tiny", "--precision", "int8"], "precision is 'int8'; allowed: fp32, bf16, fp16."),
        (["tiny", "--architecture", "H100"], "architecture is 'H100'"),
        (["tiny", "--device", "cuda:99"], "device is 'cuda:99'"),
    ],
)
def test_mistakes_of_kernels_are_named(capsys, options: list[str], message: str) -> None:
    assert main(["kernels", *options]) == 2
    assert message in capsys.readouterr().err
