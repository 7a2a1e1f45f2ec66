"""`clip_core.convert` against open_clip: what it wrote is read, what is exported it reads, and every configuration.

Covers clip_core.convert.openclip_config, openclip_words and openclip_writing.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import PIL.Image
import pytest
import tokenizers
import tokenizers.models
import tokenizers.pre_tokenizers
import tokenizers.processors
import torch
from safetensors.torch import save_file

import clip_core
from clip_core.building import build
from clip_core.bundle import Bundle
from clip_core.config import AttentionPoolConfig, ClipConfig, HfTokenizerConfig, ResNetConfig, TimmConfig, VitConfig
from clip_core.convert.checkpoint import differences
from clip_core.convert.openclip_config import from_openclip
from clip_core.convert.openclip_writing import to_openclip_config
from clip_core.errors import CheckpointMismatch, ConfigError
from clip_core.presets import get_config, list_models
from clip_core.presets.parts import INCEPTION_MEAN, INCEPTION_STD, model, text_tower

pytestmark = pytest.mark.parity

IN_BOTH = sorted(set(open_clip.list_models()) & set(list_models()))


def vit(**options: Any) -> VitConfig:
    fields = {
        "image_size": 32,
        "patch_size": 8,
        "width": 32,
        "layers": 2,
        "heads": 2,
        "mlp_dim": 70,
        "activation": "gelu",
    }
    return VitConfig(**{**fields, **options})


def text(**options: Any) -> Any:
    return text_tower(32, 2, 2, 16, **{"vocab_size": 49408, **options})


SMALL: dict[str, ClipConfig] = {
    "plain": model(24, vit(), text()),
    "quick gelu, other pixels": model(
        24,
        vit(activation="quick_gelu"),
        text(activation="quick_gelu"),
        mean=INCEPTION_MEAN,
        std=INCEPTION_STD,
        resize_mode="squash",
        interpolation="bilinear",
    ),
    "clipa": model(24, vit(pre_norm=False, pool="average", norm_after_pool=True), text(causal=False, pool="last")),
    "layer scale, nested": model(24, vit(layer_scale=0.1), text(layer_scale=0.1), layout="nested"),
    "attention pool": model(24, vit(attention_pool=AttentionPoolConfig(queries=4, heads=8)), text()),
    "resnet": model(24, ResNetConfig(image_size=32, layers=(1, 1, 1, 1), width=16, heads=8), text()),
    "siglip text": model(
        32,
        vit(norm_eps=1e-6, activation="gelu_tanh"),
        text(causal=False, pool="last", projection="linear_bias", activation="gelu_tanh", norm_eps=1e-6),
        layout="nested",
        logit_bias=-10.0,
    ),
}


def drawn(config: ClipConfig) -> Bundle:
    torch.manual_seed(0)
    held = build(config)
    with torch.no_grad():
        for parameter in held.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    return Bundle.of(held)


@pytest.mark.parametrize("name", IN_BOTH)
def test_every_configuration_of_open_clip_reads_as_our_architecture_and_back(name: str) -> None:
    theirs, ours = open_clip.get_model_config(name), get_config(name)
    held = from_openclip(theirs)
    assert held.layout == ours.layout
    # open_clip keeps the preprocessing with the weights, not with the architecture.
    assert not {key for key in differences(ours, held) if not key.startswith("preprocess.")}
    written = to_openclip_config(ours)
    assert not differences(ours, from_openclip(written["model_cfg"], written["preprocess_cfg"]))


def test_the_two_have_most_names_in_common() -> None:
    assert len(IN_BOTH) >= 140


@pytest.mark.parametrize("name", SMALL)
def test_open_clip_reads_what_we_export(tmp_path: Path, photo: PIL.Image.Image, name: str) -> None:
    bundle = drawn(SMALL[name])
    folder = clip_core.export(bundle, tmp_path / "out")
    peer, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    peer.eval()
    pixels = bundle.preprocess(photo)
    assert torch.equal(pixels, transform(photo))
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(["a photo of a cat", "zebra crossing"])
    assert torch.equal(tokens, bundle.tokenizer(["a photo of a cat", "zebra crossing"]))
    with torch.no_grad():
        for wanted, got in (
            (peer.encode_image(pixels[None]), bundle.model.encode_image(pixels[None])),
            (peer.encode_text(tokens), bundle.model.encode_text(tokens)),
        ):
            assert (wanted - got).abs().max() < 1e-5 * max(1.0, float(wanted.abs().max()))
    back = clip_core.load(folder)
    assert back.config == SMALL[name]
    before, after = bundle.model.state_dict(), back.model.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())


def test_open_clip_finds_an_export_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = clip_core.export(drawn(SMALL["plain"]), tmp_path / "out")
    # What a download would give.
    monkeypatch.setattr(
        "open_clip.factory.download_pretrained_from_hf",
        lambda model_id, filename="open_clip_model.safetensors", **_: str(folder / filename),
    )
    peer = open_clip.create_model("hf-hub:me/mine")
    assert torch.equal(peer.state_dict()["visual.proj"], clip_core.load(folder).model.state_dict()["visual.proj"])


@pytest.mark.parametrize("suffix", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin", "epoch_3.pt"])
def test_a_folder_that_open_clip_wrote_is_read(tmp_path: Path, photo: PIL.Image.Image, suffix: str) -> None:
    written = to_openclip_config(SMALL["quick gelu, other pixels"])
    torch.manual_seed(0)
    peer = open_clip.CLIP(**written["model_cfg"]).eval()
    (tmp_path / "open_clip_config.json").write_text(json.dumps(written))
    if suffix.endswith(".safetensors"):
        save_file(peer.state_dict(), tmp_path / suffix)
    else:
        torch.save(
            {"state_dict": {f"module.{key}": value for key, value in peer.state_dict().items()}}, tmp_path / suffix
        )
    bundle = clip_core.load(tmp_path)
    assert bundle.config == SMALL["quick gelu, other pixels"]
    pixels = bundle.preprocess(photo)[None]
    with torch.no_grad():
        assert (peer.encode_image(pixels) - bundle.model.encode_image(pixels)).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vision_cfg": {"qk_norm": True}}, "vision_cfg has qk_norm = True"),
        ({"text_cfg": {"hf_model_name": "org/unheard"}}, "hf_model_name is 'org/unheard'"),
        ({"text_cfg": {"hf_tokenizer_name": "org/unheard"}}, "hf_tokenizer_name is 'org/unheard', of which"),
        ({"text_cfg": {"tokenizer_kwargs": {"case": 1}, "hf_tokenizer_name": "x"}}, "tokenizer_kwargs is"),
        ({"text_cfg": {"pool_type": "attn"}}, "pool_type is 'attn'; allowed: 'argmax'"),
        ({"vision_cfg": {"act_kwargs": {"inplace": True}}}, "vision_cfg.act_kwargs is"),
        ({"vision_cfg": {"norm_kwargs": {"bias": False}}}, "vision_cfg.norm_kwargs is"),
        ({"audio_cfg": {}}, "model_cfg has audio_cfg"),
        ({"vision_cfg": 3}, "vision_cfg is 3; allowed: an object"),
    ],
)
def test_a_configuration_that_is_not_known_is_refused_by_key(change: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_openclip({"embed_dim": 24, "vision_cfg": {}, "text_cfg": {}, **change})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (model(24, vit(activation="quick_gelu"), text()), "quick_gelu is for both towers"),
        (model(24, vit(dense_pool=True), text()), "image.dense_pool is True, and OpenCLIP would make it False"),
        (
            model(
                24,
                TimmConfig(name="resnet18", image_size=32, pool="avg", projection="linear", options=(("a", 1),)),
                text(),
            ),
            "gives timm no options",
        ),
    ],
)
def test_a_model_that_open_clip_cannot_build_is_not_exported(config: ClipConfig, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        to_openclip_config(config)


def test_several_weights_without_a_known_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "open_clip_config.json").write_text(json.dumps(to_openclip_config(SMALL["plain"])))
    with pytest.raises(CheckpointMismatch, match="has no weights file; allowed: open_clip_model.safetensors"):
        clip_core.load(tmp_path)
    for name in ("epoch_1.pt", "epoch_2.pt"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(CheckpointMismatch, match="several weights files .epoch_1.pt, epoch_2.pt"):
        clip_core.load(tmp_path)


def test_a_tokenizer_of_hugging_face_goes_there_and_back(tmp_path: Path) -> None:
    words = {word: index for index, word in enumerate(["<pad>", "</s>", "<unk>", "a", "photo", "of", "cat"])}
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    backend.post_processor = tokenizers.processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    (tmp_path / "words").mkdir()
    backend.save(str(tmp_path / "words" / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>", "eos_token": "</s>"}
    (tmp_path / "words" / "tokenizer_config.json").write_text(json.dumps(settings))
    held = HfTokenizerConfig(context_length=16, source="org/words", clean="canonicalize", pad_id=0)
    config = model(24, vit(), text(vocab_size=9, pool="last", causal=False), layout="nested", tokenizer=held)
    folder = clip_core.export(Bundle.of(build(config), tmp_path / "words"), tmp_path / "out")

    captions = ["A photo, of a CAT!", "of a dog"]
    back = clip_core.load(folder)
    assert back.config == config
    theirs = open_clip.get_tokenizer(f"local-dir:{folder}")(captions)
    assert torch.equal(back.tokenizer(captions), theirs)
    assert theirs[0, :7].tolist() == [3, 4, 5, 3, 6, 1, 0]
