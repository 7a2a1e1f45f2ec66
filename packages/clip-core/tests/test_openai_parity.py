"""OpenAI's layout as open_clip reads it, what wraps state dicts, and what is known to differ: all of it by name.

Covers clip_core.convert.openai, checkpoint and reading, and the wrappers of clip_core.weights.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip.model import build_model_from_openai_state_dict

import clip_core
from clip_core.building import build
from clip_core.config import ClipConfig, ResNetConfig, TextConfig, VitConfig
from clip_core.convert import openai
from clip_core.errors import CheckpointMismatch, ConfigError
from clip_core.presets.parts import INCEPTION_MEAN, INCEPTION_STD, model

pytestmark = pytest.mark.parity

TEXT = TextConfig(context_length=12, vocab_size=99, width=64, layers=2, heads=1, mlp_dim=256, activation="quick_gelu")
IMAGES = {
    "vit": VitConfig(image_size=32, patch_size=8, width=128, layers=2, heads=2, mlp_dim=512, activation="quick_gelu"),
    "resnet": ResNetConfig(image_size=64, layers=(1, 2, 1, 1), width=16, heads=8),
}


def drawn(config: ClipConfig) -> clip_core.Clip:
    torch.manual_seed(0)
    return build(config)


def openai_file(config: ClipConfig, path: Path) -> clip_core.Clip:
    """A file in OpenAI's layout: names and three numbers beside the weights."""
    held = drawn(config)
    tensors = openai.from_clip(held.state_dict(), config)
    torch.save(tensors, path)
    return held


@pytest.mark.parametrize("name", IMAGES)
def test_a_state_dict_of_openai_says_everything(tmp_path: Path, name: str) -> None:
    config = model(24, IMAGES[name], TEXT)
    held = openai_file(config, tmp_path / "a.pt")
    bundle = clip_core.load(tmp_path / "a.pt")
    assert bundle.config == config
    # open_clip keeps these weights in half precision; both sides do here.
    peer = build_model_from_openai_state_dict(dict(torch.load(tmp_path / "a.pt")), cast_dtype=torch.float16).float()
    ours = build(config)
    ours.load_state_dict(peer.state_dict())
    images, tokens = torch.randn(2, 3, *bundle.model.visual.image_size), torch.randint(0, 99, (2, 12))
    with torch.no_grad():
        assert (peer.encode_image(images) - ours.encode_image(images)).abs().max() < 1e-5
        assert (peer.encode_text(tokens) - ours.encode_text(tokens)).abs().max() < 1e-5
    assert all(torch.equal(value, held.state_dict()[key]) for key, value in bundle.model.state_dict().items())


def test_there_and_back_is_bit_equal() -> None:
    config = model(24, IMAGES["vit"], TEXT)
    held = drawn(config).state_dict()
    back = openai.to_clip(openai.from_clip(held, config))
    assert back.keys() == held.keys()
    assert all(torch.equal(back[key], held[key]) for key in held)


@pytest.mark.parametrize(
    "config",
    [
        model(24, IMAGES["vit"], TEXT, mean=INCEPTION_MEAN, std=INCEPTION_STD),
        model(24, IMAGES["vit"], TEXT).with_activation("gelu"),
        model(24, IMAGES["vit"], TEXT, layout="nested"),
    ],
)
def test_another_model_is_not_written_as_openai_s(config: ClipConfig) -> None:
    with pytest.raises(ConfigError, match="OpenAI's layout holds no configuration"):
        openai.from_clip(drawn(config).state_dict(), config)


def test_weights_of_openai_are_refused_under_a_name_with_another_activation(tmp_path: Path) -> None:
    # Of the sizes of ViT-B-32, without its memory: shapes are enough to tell, and nothing is read but them.
    config = clip_core.get_config("ViT-B-32-quickgelu")
    shapes = clip_core.create_model("ViT-B-32-quickgelu", device="meta").state_dict()
    tensors = {key: torch.zeros(()).expand(value.shape) for key, value in shapes.items()}
    torch.save(openai.from_clip(tensors, config), tmp_path / "openai.pt")
    assert (tmp_path / "openai.pt").stat().st_size < 1_000_000
    with pytest.raises(CheckpointMismatch) as caught:
        clip_core.create_model("ViT-B-32", pretrained=tmp_path / "openai.pt")
    for part in ("image.activation is 'quick_gelu' there, 'gelu' asked", "Its architecture is 'ViT-B-32-quickgelu'"):
        assert part in str(caught.value)
    with pytest.raises(CheckpointMismatch, match="Its architecture is 'ViT-B-32-quickgelu'"):
        clip_core.create_model("ViT-L-14-quickgelu", pretrained=tmp_path / "openai.pt")


def test_weights_that_do_not_say_their_model_name_what_they_could_be(tmp_path: Path) -> None:
    shapes = clip_core.create_model("ViT-B-32", device="meta").state_dict()
    torch.save({key: torch.zeros(()).expand(value.shape) for key, value in shapes.items()}, tmp_path / "w.pt")
    with pytest.raises(ConfigError, match="do not say their model.*create.NAME, .*could be of .*ViT-B-32"):
        clip_core.load(tmp_path / "w.pt")


def test_a_bundle_with_other_preprocessing_is_refused(tmp_path: Path, tiny: clip_core.Bundle) -> None:
    for field, value in (("mean", [0.5, 0.5, 0.5]), ("resize_mode", "squash"), ("interpolation", "bilinear")):
        content = tiny.config.to_json()
        content["preprocess"][field] = value
        other = ClipConfig.from_json(content)
        held = drawn(other)
        folder = clip_core.save(clip_core.Bundle.of(held), tmp_path / field)
        with pytest.raises(CheckpointMismatch, match=f"preprocess.{field} is .* there, .* asked.*clip_core.load"):
            clip_core.create_model("tiny", pretrained=folder)
        exported = clip_core.export(clip_core.Bundle.of(held), tmp_path / f"{field}-open_clip")
        with pytest.raises(CheckpointMismatch, match=f"OpenCLIP folder.*preprocess.{field} is"):
            clip_core.create_model("tiny", pretrained=exported)


def averaged(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: value + 1 for key, value in weights.items()}


WRAPPED: dict[str, Any] = {
    "compiled": lambda w: {"state_dict": {f"_orig_mod.{k}": v for k, v in w.items()}},
    "distributed and compiled": lambda w: {f"module._orig_mod.{k}": v for k, v in w.items()},
    "a compiled tower": lambda w: {k.replace("visual.", "visual._orig_mod."): v for k, v in w.items()},
    "timm's average": lambda w: {"epoch": 1, "state_dict": averaged(w), "state_dict_ema": w},
    "an averaged model of torch": lambda w: {
        "ema": {"n_averaged": torch.tensor(1), **{f"module.{k}": v for k, v in w.items()}}
    },
    "an average with a state dict inside": lambda w: {"model": averaged(w), "ema": {"state_dict": w}},
    "a scale of one element": lambda w: {**w, "logit_scale": w["logit_scale"].reshape(1)},
}


@pytest.mark.parametrize("name", WRAPPED)
def test_what_training_wraps_around_weights_is_taken_off(tmp_path: Path, name: str) -> None:
    config = model(24, IMAGES["vit"], TEXT)
    weights = drawn(config).state_dict()
    torch.save(WRAPPED[name](weights), tmp_path / "w.pt")
    if "average" in name and "torch" not in name:
        with pytest.raises(CheckpointMismatch, match="holds the trained weights .* and their moving average"):
            build(config, tmp_path / "w.pt")
    ema = True if "average" in name else None
    held = clip_core.convert.reading.open_file(tmp_path / "w.pt", ema=ema).tensors(config)
    assert held.keys() == weights.keys()
    assert all(torch.equal(value, weights[key]) for key, value in held.items())


def test_the_average_is_chosen_by_an_argument(tmp_path: Path) -> None:
    weights = clip_core.create_model("tiny").state_dict()
    torch.save({"state_dict": averaged(weights), "state_dict_ema": weights}, tmp_path / "w.pt")
    with pytest.raises(CheckpointMismatch, match="pass ema=True for the average or ema=False"):
        clip_core.create_model("tiny", pretrained=tmp_path / "w.pt")
    for ema, wanted in ((True, weights), (False, averaged(weights))):
        found = clip_core.create_model("tiny", pretrained=tmp_path / "w.pt", ema=ema)
        assert torch.equal(found.text_projection, wanted["text_projection"])
    torch.save(weights, tmp_path / "plain.pt")
    with pytest.raises(CheckpointMismatch, match="does not hold a moving average"):
        clip_core.create_model("tiny", pretrained=tmp_path / "plain.pt", ema=True)


def test_a_torchscript_archive_is_refused_with_advice(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "ViT-B-32.pt", "w") as archive:
        for name in ("data.pkl", "constants.pkl", "code/__torch__.py"):
            archive.writestr(f"ViT-B-32/{name}", b"")
    with pytest.raises(CheckpointMismatch, match="is a TorchScript archive.*torch.jit.load.path, map_location='cpu'"):
        clip_core.create_model("ViT-B-32-quickgelu", pretrained=tmp_path / "ViT-B-32.pt")


@pytest.mark.parametrize("name", ["ViT-S-32-alt", "coca_ViT-B-32"])
def test_flat_weights_load_into_a_nested_model_and_back(name: str) -> None:
    config = clip_core.get_config(name)
    keys = set(open_clip.create_model(name).state_dict()) if name == "ViT-S-32-alt" else {"text.ln_final.bias"}
    held = clip_core.convert.checkpoint.placed({key: torch.zeros(1) for key in keys}, config)
    if config.layout == "flat":
        nested = clip_core.convert.checkpoint.placed(held, model(24, IMAGES["vit"], TEXT, layout="nested"))
        assert "text.transformer.resblocks.0.ln_1.weight" in nested
        assert clip_core.convert.checkpoint.placed(nested, config).keys() == keys
    else:
        assert held.keys() == keys
