"""`clip_core.convert.image_tower` and `clip_core.convert.text_encoder` against timm and transformers.

Small random models are written by those libraries and put into a tower; the features of the two are equal then.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch

import clip_core
from clip_core.building import build
from clip_core.config import ClipConfig, HfTextConfig, TimmConfig, VitConfig
from clip_core.errors import CheckpointMismatch, ConfigError
from clip_core.presets.parts import model, text_tower

timm = pytest.importorskip("timm")
transformers = pytest.importorskip("transformers")

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

VIT = VitConfig(image_size=32, patch_size=8, width=32, layers=2, heads=4, mlp_dim=128, activation="gelu")
SMALL = {"embed_dim": 32, "depth": 2, "num_heads": 4, "patch_size": 8}
TEXT = text_tower(32, 1, 4, context_length=8, vocab_size=50, mlp_dim=64)


def vit(**changes: Any) -> Any:
    torch.manual_seed(0)
    return build(model(24, dataclasses.replace(VIT, **changes), TEXT))


def of_timm(projection: str = "linear", **options: Any) -> Any:
    torch.manual_seed(0)
    image = TimmConfig(
        name="vit_base_patch16_siglip_224",
        image_size=32,
        pool="map",
        projection=projection,  # type: ignore[arg-type]
        options=tuple(sorted({**SMALL, **options}.items())),
    )
    return build(model(24, image, TEXT, layout="nested"))


def theirs(folder: Path, name: str, size: int = 32, classes: int = 24, **options: Any) -> Any:
    """A model of timm with weights that are nowhere zero or one, written as timm writes for the Hub."""
    torch.manual_seed(1)
    arguments = {**SMALL, "img_size": size, **options}
    peer = timm.create_model(name, num_classes=classes, **arguments).eval()
    with torch.no_grad():
        for parameter in peer.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
        if hasattr(peer, "head") and classes and "clip" in name:
            peer.head.bias.zero_()
    timm.models.save_for_hf(peer, folder, model_args=arguments, safe_serialization=True)
    return peer


@pytest.mark.parametrize("as_file", [False, True], ids=["folder", "file"])
@pytest.mark.parametrize("pre_norm", [True, False])
def test_a_plain_tower_takes_a_clip_transformer_of_timm(tmp_path: Path, pre_norm: bool, as_file: bool) -> None:
    peer = theirs(tmp_path, "vit_base_patch32_clip_224", pre_norm=pre_norm, init_values=0.5)
    clip = vit(pre_norm=pre_norm, layer_scale=0.1)
    text = clip.encode_text(torch.ones(1, 8, dtype=torch.long))
    assert clip_core.load_image_tower(clip, tmp_path / "model.safetensors" if as_file else tmp_path) == []
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert (clip.encode_image(images) - peer(images)).abs().max() < 1e-5
    assert torch.equal(clip.encode_text(torch.ones(1, 8, dtype=torch.long)), text)


def test_the_projection_stays_where_timm_classifies(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    peer = theirs(tmp_path, "vit_base_patch32_clip_224", classes=10)
    clip = vit()
    projection = clip.visual.proj.detach().clone()
    with caplog.at_level(logging.INFO):
        assert clip_core.load_image_tower(clip, tmp_path) == ["visual.proj"]
    assert "proj keep theirs" in caplog.text
    assert torch.equal(clip.visual.proj, projection)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        wanted = peer.forward_head(peer.forward_features(images), pre_logits=True) @ projection
        assert (clip.encode_image(images) - wanted).abs().max() < 1e-5


@pytest.mark.parametrize("projection", ["linear", "none"])
@pytest.mark.parametrize("classes", [0, 10])
def test_a_tower_of_timm_takes_its_weights(tmp_path: Path, projection: str, classes: int) -> None:
    peer = theirs(tmp_path, "vit_base_patch16_siglip_224", classes=classes)
    clip = (
        of_timm(projection)
        if projection == "linear"
        else build(model(32, dataclasses.replace(of_timm().config.image, projection="none"), TEXT, layout="nested"))
    )
    kept = clip_core.load_image_tower(clip, tmp_path)
    assert kept == (["visual.head.proj.weight"] if projection == "linear" else [])
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        wanted = clip.visual.head(peer.forward_head(peer.forward_features(images), pre_logits=True))
        assert (clip.encode_image(images) - wanted).abs().max() < 1e-5


@pytest.mark.parametrize("classes", [24, 10])
def test_a_classifier_of_the_right_width_is_the_projection_in_the_trunk(tmp_path: Path, classes: int) -> None:
    peer = theirs(tmp_path, "vit_base_patch16_siglip_224", classes=classes)
    clip = of_timm("trunk")
    kept = clip_core.load_image_tower(clip, tmp_path)
    assert kept == ([] if classes == 24 else ["visual.trunk.head.bias", "visual.trunk.head.weight"])
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        pooled = peer.forward_head(peer.forward_features(images), pre_logits=True)
        assert (clip.encode_image(images) - clip.visual.trunk.head(pooled)).abs().max() < 1e-5
        if classes == 24:
            assert (clip.encode_image(images) - peer(images)).abs().max() < 1e-5


@pytest.mark.parametrize("name", ["vit_base_patch32_clip_224", "vit_base_patch16_siglip_224"])
def test_positions_are_interpolated_as_timm_does(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    peer = theirs(tmp_path, name, size=48, classes=24 if "clip" in name else 0)
    peer.set_input_size((32, 32))
    clip = vit() if "clip" in name else of_timm()
    with caplog.at_level(logging.INFO):
        clip_core.load_image_tower(clip, tmp_path)
    assert "from 6x6 to 4x4" in caplog.text
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        wanted = peer(images) if "clip" in name else clip.visual.head(peer(images))
        assert (clip.encode_image(images) - wanted).abs().max() < 1e-5


def test_what_we_export_comes_back(tmp_path: Path) -> None:
    first, second = vit(), vit(heads=4)
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.normal_()
    clip_core.export(clip_core.Bundle.of(first), tmp_path / "export", "timm")
    clip_core.load_image_tower(second, tmp_path / "export")
    held = first.visual.state_dict()
    assert all(torch.equal(value, held[key]) for key, value in second.visual.state_dict().items())


@pytest.mark.parametrize(
    ("peer", "clip", "message"),
    [
        ({"depth": 3}, vit, "unexpected: blocks.2.attn.proj.bias"),
        ({"depth": 1}, vit, "missing: transformer.resblocks.1"),
        ({"embed_dim": 48}, vit, "shapes differ: .*class_embedding is .48,., the tower has .32"),
        ({"num_heads": 2}, vit, "heads 2, and this one has 4"),
        ({"act_layer": "quick_gelu"}, vit, "activation 'quick_gelu', and this one has 'gelu'"),
        ({}, of_timm, "missing|modules|norm_eps"),
    ],
)
def test_another_tower_is_refused_by_what_differs(tmp_path: Path, peer: Any, clip: Any, message: str) -> None:
    theirs(tmp_path, "vit_base_patch32_clip_224", **peer)
    ours = clip()
    before = {key: value.clone() for key, value in ours.state_dict().items()}
    with pytest.raises(CheckpointMismatch, match=message):
        clip_core.load_image_tower(ours, tmp_path)
    assert all(torch.equal(value, before[key]) for key, value in ours.state_dict().items())


def test_a_tower_or_a_folder_that_cannot_be_is_refused(tmp_path: Path) -> None:
    theirs(tmp_path, "vit_base_patch32_clip_224")
    with pytest.raises(ConfigError, match="of kind 'modified_resnet'"):
        clip_core.load_image_tower(clip_core.create_model("RN50", device="meta"), tmp_path)
    with pytest.raises(ConfigError, match="meta device"):
        clip_core.load_image_tower(build(vit().config, device="meta"), tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "none_of_timm"}))
    with pytest.raises(ConfigError, match="architecture 'none_of_timm'"):
        clip_core.load_image_tower(vit(), tmp_path)


SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}


def encoder(kind: str, pool: str, **changes: Any) -> ClipConfig:
    pad = 1 if kind == "roberta" else 0
    if kind == "mt5":
        settings: dict[str, Any] = {
            "num_layers": 2, "num_heads": 4, "d_kv": 8, "d_ff": 48, "feed_forward_proj": "gated-gelu",
            "relative_attention_num_buckets": 8, "relative_attention_max_distance": 16, "dropout_rate": 0.0,
            "layer_norm_epsilon": 1e-6, "initializer_factor": 1.0,
        }  # fmt: skip
    else:
        settings = {
            **SIZES, "hidden_act": "gelu", "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
            "max_position_embeddings": 18, "type_vocab_size": 2, "layer_norm_eps": 1e-5, "initializer_range": 0.02,
        }  # fmt: skip
        del settings["hidden_size"]
    text = HfTextConfig(
        model_type=kind,  # type: ignore[arg-type]
        settings=tuple({**settings, **changes}.items()),
        width=32,
        context_length=16,
        vocab_size=50,
        pad_id=pad,
        pool=pool,  # type: ignore[arg-type]
        projection="linear",
    )
    return dataclasses.replace(model(24, VIT, TEXT, layout="nested"), text=text, tokenizer=tokenizer(pad))


def tokenizer(pad_id: int) -> Any:
    from clip_core.config import HfTokenizerConfig

    return HfTokenizerConfig(context_length=16, source="test", clean="none", pad_id=pad_id)


def settings_of(config: ClipConfig) -> dict[str, Any]:
    text = config.text
    assert isinstance(text, HfTextConfig)
    width = "d_model" if text.model_type == "mt5" else "hidden_size"
    return {**dict(text.settings), width: 32, "vocab_size": 50, "pad_token_id": text.pad_id}


ENCODERS = {
    "the encoder alone": ("roberta", "mean", "RobertaModel"),
    "inside a masked language model": ("roberta", "mean", "RobertaForMaskedLM"),
    "with BERT's pooling layer": ("bert", "cls", "BertModel"),
    "without BERT's pooling layer": ("bert", "cls", "BertForMaskedLM"),
    "with a decoder": ("mt5", "mean", "MT5ForConditionalGeneration"),
    "without its decoder": ("mt5", "mean", "MT5EncoderModel"),
}


@pytest.mark.parametrize("name", ENCODERS)
def test_a_text_tower_takes_an_encoder(tmp_path: Path, name: str) -> None:
    kind, pool, made = ENCODERS[name]
    config = encoder(kind, pool)
    torch.manual_seed(1)
    family = {"roberta": "RobertaConfig", "bert": "BertConfig", "mt5": "MT5Config"}[kind]
    peer = getattr(transformers, made)(getattr(transformers, family)(**settings_of(config))).eval()
    with torch.no_grad():
        for parameter in peer.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    peer.save_pretrained(tmp_path)
    torch.manual_seed(2)
    clip = build(config)
    kept = clip_core.load_text_tower(clip, tmp_path)
    pooler = ["text.transformer.pooler.dense.bias", "text.transformer.pooler.dense.weight"]
    assert kept == ["text.proj.weight", *(pooler if name == "without BERT's pooling layer" else [])]
    tokens = torch.randint(3, 50, (2, 16))
    inner = peer.get_encoder() if kind == "mt5" else getattr(peer, peer.base_model_prefix, peer)
    with torch.no_grad():
        output = inner(input_ids=tokens, attention_mask=torch.ones_like(tokens)).last_hidden_state
        features, hidden = clip.text.text_features_and_tokens(tokens)
    wanted = output[:, 1:] if pool == "cls" else output
    assert wanted.std() > 0.1
    assert (hidden - wanted).abs().max() < 1e-5
    if pool == "mean":
        assert (features - wanted.mean(dim=1) @ clip.text.proj.weight.T).abs().max() < 1e-5


def test_another_encoder_is_refused_by_what_differs(tmp_path: Path) -> None:
    config = encoder("roberta", "mean")
    peer = transformers.RobertaModel(transformers.RobertaConfig(**settings_of(config)))
    peer.save_pretrained(tmp_path)
    for change, message in (
        ({"num_attention_heads": 2}, "num_attention_heads 4 and the text tower 2"),
        ({"hidden_act": "relu"}, "hidden_act 'gelu' and the text tower 'relu'"),
        ({"num_hidden_layers": 1}, "num_hidden_layers 2 and the text tower 1"),
    ):
        with pytest.raises(CheckpointMismatch, match=message):
            clip_core.load_text_tower(build(encoder("roberta", "mean", **change)), tmp_path)
    with pytest.raises(CheckpointMismatch, match="holds a 'roberta', the text tower is a 'bert'"):
        clip_core.load_text_tower(build(encoder("bert", "mean")), tmp_path)
    with pytest.raises(ConfigError, match="of kind 'transformer'"):
        clip_core.load_text_tower(vit(), tmp_path)
    with pytest.raises(ConfigError, match="is no folder"):
        clip_core.load_text_tower(build(config), tmp_path / "model.safetensors")
