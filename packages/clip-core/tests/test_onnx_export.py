"""ONNX files of both towers: what they compute, and that a wrong one is never left behind."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

import clip_core
from clip_core import onnx_export
from clip_core.errors import ConfigError, StorageError

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.mark.skipif(torch.__version__.startswith("2.6."), reason="torch 2.6 takes a free batch for a constant")
def test_files_give_the_features_of_the_model_for_any_batch(tiny: clip_core.Bundle, tmp_path: Path) -> None:
    image, text = clip_core.export_onnx(tiny, tmp_path / "new" / "folder")
    assert sorted(path.name for path in image.parent.iterdir()) == ["image.onnx", "text.onnx"]
    tokens = tiny.tokenizer(["a photo of a cat", "", "two dogs " * 40, "x"])
    images = torch.randn(4, 3, 32, 32)
    for path, name, inputs, encode in (
        (image, "images", images, tiny.model.encode_image),
        (text, "tokens", tokens, tiny.model.encode_text),
    ):
        session = onnxruntime.InferenceSession(path)
        assert [value.name for value in onnx.load(path).graph.output] == ["features"]
        for count in (1, 3, 4):
            (found,) = session.run(["features"], {name: inputs[:count].numpy()})
            with torch.no_grad():
                expected = encode(inputs[:count], normalize=True)
            torch.testing.assert_close(torch.from_numpy(found), expected, atol=1e-5, rtol=0)


@pytest.mark.skipif(torch.__version__.startswith("2.6."), reason="torch 2.6 takes a free batch for a constant")
def test_a_file_with_other_features_is_not_left_behind(
    tiny: clip_core.Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = onnx_export._write

    def spoil(tower, argument, inputs, path) -> None:
        with torch.no_grad():
            tower.model.logit_scale.copy_(tower.model.logit_scale)
            tower.model.visual.proj[0, 0] += 1
            write(tower, argument, inputs, path)
            tower.model.visual.proj[0, 0] -= 1

    monkeypatch.setattr(onnx_export, "_write", spoil)
    (tmp_path / "image.onnx").write_text("what was there before")
    with pytest.raises(ConfigError, match="ONNX file of the image tower differs from the model by .* It was not"):
        clip_core.export_onnx(tiny.model, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["image.onnx"]
    assert (tmp_path / "image.onnx").read_text() == "what was there before"


def test_what_cannot_be_exported_is_refused(
    tiny: clip_core.Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for model, message in (
        (clip_core.create_model("tiny", precision="bf16"), "torch.bfloat16 weights on cpu in evaluation mode"),
        (clip_core.create_model("tiny", device="meta"), "weights on meta"),
        (clip_core.create_model("tiny").train(), "training mode; allowed: torch.float32 on the CPU"),
    ):
        with pytest.raises(ConfigError, match=message):
            clip_core.export_onnx(model, tmp_path / "a")
    assert not (tmp_path / "a").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="Cannot write ONNX files"):
        clip_core.export_onnx(tiny, tmp_path / "file" / "b")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs onnx, onnxscript, onnxruntime: pip install 'clip-core\[onnx\]'"):
        clip_core.export_onnx(tiny, tmp_path / "c")
