"""What is averaged and converted, as OpenCLIP, transformers and timm load it: equal features."""

from __future__ import annotations

import json
from pathlib import Path

import open_clip
import pytest
import torch

import clip_core
from clip_core.errors import ConfigError
from clip_core.weights import read_weights
from clip_hub.conversion import convert
from clip_hub.probe import TEXTS, fixed_pictures
from clip_hub.soup import soup
from fine_tunes import fine_tunes

pytestmark = pytest.mark.parity


def peer(layout: Path, seed: int) -> torch.nn.Module:
    """OpenCLIP's own model, with the weights that OpenCLIP draws."""
    torch.manual_seed(seed)
    settings = json.loads((layout / "open_clip_config.json").read_text())["model_cfg"]
    return open_clip.CLIP(**settings).eval()


@torch.no_grad()
def test_the_soup_of_openclips_checkpoints_is_openclips_with_the_mean_weights(tmp_path: Path) -> None:
    # A model that OpenCLIP has no name for; its configuration says what it is.
    layout = clip_core.export(clip_core.create("tiny"), tmp_path / "layout")
    models = [peer(layout, seed) for seed in (1, 2, 3)]
    for number, model in enumerate(models):
        # As OpenCLIP's training saves them.
        torch.save({"epoch": number, "name": "run", "state_dict": model.state_dict()}, tmp_path / f"epoch_{number}.pt")
    states = [model.state_dict() for model in models]
    mean = {key: (states[0][key] + states[1][key] + states[2][key]) / 3 for key in states[0]}
    made = soup([f"tiny:{tmp_path / f'epoch_{number}.pt'}" for number in range(3)], tmp_path / "soup")
    held = read_weights(made / "model.safetensors")
    assert held.keys() == mean.keys()
    assert all(torch.equal(held[key], mean[key]) for key in mean)

    folder = convert(made, tmp_path / "openclip", "open_clip")
    loaded, _, _ = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    loaded.eval()
    models[0].load_state_dict(mean)
    bundle = clip_core.load(made)
    pictures = torch.stack([bundle.preprocess(picture) for picture in fixed_pictures(32, 32)])
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(list(TEXTS))
    assert torch.equal(tokens, bundle.tokenizer(list(TEXTS)))
    assert torch.equal(loaded.encode_image(pictures), models[0].encode_image(pictures))
    assert torch.equal(loaded.encode_text(tokens), models[0].encode_text(tokens))
    torch.testing.assert_close(bundle.model.encode_image(pictures), loaded.encode_image(pictures), atol=1e-5, rtol=0)
    torch.testing.assert_close(bundle.model.encode_text(tokens), loaded.encode_text(tokens), atol=1e-5, rtol=0)


@torch.no_grad()
def test_every_layout_has_the_same_model(tmp_path: Path) -> None:
    (run,) = fine_tunes(tmp_path / "runs", 1)
    bundle = clip_core.load(run)
    pictures = torch.stack([bundle.preprocess(picture) for picture in fixed_pictures(32, 32)])
    expected = bundle.model.encode_image(pictures)
    last = run
    for to in ("open_clip", "transformers", "bundle"):
        last = convert(last, tmp_path / to, to)
        assert torch.equal(clip_core.load(last).model.encode_image(pictures), expected), to
    assert (last / "model.safetensors").read_bytes()[8:].count(b'"F32"') == len(bundle.model.state_dict())

    from transformers import CLIPModel

    theirs = CLIPModel.from_pretrained(tmp_path / "transformers").eval()
    image = theirs.visual_projection(theirs.vision_model(pictures).pooler_output)
    torch.testing.assert_close(image, expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_image_tower_is_timms(tmp_path: Path) -> None:
    # Those before take every file of a folder for a pickle.
    timm = pytest.importorskip("timm", minversion="1.0.26")
    (run,) = fine_tunes(tmp_path / "runs", 1)
    bundle = clip_core.load(run)
    pictures = torch.stack([bundle.preprocess(picture) for picture in fixed_pictures(32, 32)])
    tower = timm.create_model(f"local-dir:{convert(run, tmp_path / 'timm', 'timm')}", pretrained=True).eval()
    torch.testing.assert_close(tower(pictures), bundle.model.encode_image(pictures), atol=1e-5, rtol=0)


def test_the_dtype_is_kept_unless_another_is_asked_for(tmp_path: Path) -> None:
    half = clip_core.save(clip_core.load(*fine_tunes(tmp_path / "runs", 1), precision="bf16"), tmp_path / "half")
    for to, dtype in (("open_clip", None), ("bundle", None), ("transformers", "fp16"), ("bundle", "fp32")):
        folder = convert(half, tmp_path / f"{to}-{dtype}", to, dtype=dtype)
        (file,) = folder.glob("*.safetensors")
        wanted = {None: torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[dtype]
        found = {key: value.dtype for key, value in read_weights(file).items() if value.ndim}
        assert set(found.values()) == {wanted}, (to, dtype)


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    (run,) = fine_tunes(tmp_path / "runs", 1)
    with pytest.raises(ConfigError, match="The layout is 'onnx'; allowed: bundle, open_clip, transformers, timm"):
        convert(run, tmp_path / "out", "onnx")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="dtype is 'int8'"):
        convert(run, tmp_path / "out", "bundle", dtype="int8")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="already exists"):
        convert(run, run, "bundle")
    assert not (tmp_path / "out").exists()
