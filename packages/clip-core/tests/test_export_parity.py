"""`clip_core.export`: transformers and timm load what it wrote, the processor gives our pixels and ids, all or nothing.

Covers clip_core.convert.writing, timm, transformers_tokenizer and clip_core.folders; OpenCLIP's layout is in
test_openclip_parity.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import timm
import torch

import clip_core
from clip_core.building import build
from clip_core.bundle import Bundle
from clip_core.config import AttentionPoolConfig, ClipConfig, ResNetConfig, TextConfig, TimmConfig, VitConfig
from clip_core.convert.checkpoint import differences
from clip_core.convert.transformers_tokenizer import TOKENIZER_FILES
from clip_core.errors import ConfigError, StorageError
from clip_core.presets.parts import INCEPTION_MEAN, INCEPTION_STD, model, text_tower

transformers = pytest.importorskip("transformers", minversion="5.0")  # its image processors have other names before

pytestmark = pytest.mark.parity

CAPTIONS = ["a photo of a cat!", "Hello, World's  best    thing 12 éclair 日本", "", "naïve <b> résumé ☃ 😀", "x " * 90]


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


def text(**options: Any) -> TextConfig:
    return text_tower(32, 2, 2, 16, **options)


SIGLIP = model(
    768,
    TimmConfig(
        name="vit_base_patch32_siglip_256", image_size=32, pool="map", projection="none", options=(("depth", 1),)
    ),
    text_tower(
        32,
        1,
        2,
        16,
        vocab_size=60,
        causal=False,
        pool="last",
        projection="linear_bias",
        norm_eps=1e-6,
        activation="gelu_tanh",
    ),
    layout="nested",
    logit_bias=-10.0,
    mean=INCEPTION_MEAN,
    std=INCEPTION_STD,
    resize_mode="squash",
)


def drawn(config: ClipConfig) -> Bundle:
    torch.manual_seed(0)
    held = build(config)
    with torch.no_grad():
        for parameter in held.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    return Bundle.of(held)


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "quick_gelu"])
def test_transformers_loads_an_export_with_its_processor(
    tmp_path: Path, photo: PIL.Image.Image, activation: Any
) -> None:
    config = model(24, vit(activation=activation), text(activation=activation))
    bundle = drawn(config)
    folder = clip_core.export(bundle, tmp_path / "out", layout="transformers")
    wanted = {"config.json", "model.safetensors", "preprocessor_config.json", *TOKENIZER_FILES}
    assert {path.name for path in folder.iterdir()} == wanted

    # As the model cards' "getting started" has it.
    peer = transformers.CLIPModel.from_pretrained(folder).eval()
    processor = transformers.CLIPProcessor.from_pretrained(folder)
    images = [photo, photo.rotate(90, expand=True)]
    inputs = processor(
        text=CAPTIONS, images=images, return_tensors="pt", padding="max_length", max_length=16, truncation=True
    )
    tokens = bundle.tokenizer(CAPTIONS)
    end = int(tokens.max())
    for ours, theirs in zip(tokens, inputs["input_ids"], strict=True):
        length = int((ours == end).int().argmax()) + 1
        assert ours[:length].tolist() == theirs[:length].tolist()
        assert set(theirs[length:].tolist()) <= {end}  # transformers pads with end of text, we with zeros
    pixels = torch.stack([bundle.preprocess(image) for image in images])
    # Pillow's processor has our pixels; the other resizes tensors, in steps of 1/255 of its own.
    exact = transformers.CLIPImageProcessorPil.from_pretrained(folder)(images, return_tensors="pt")["pixel_values"]
    assert (exact - pixels).abs().max() < 1e-5
    assert (inputs["pixel_values"] - pixels).abs().max() < 0.05
    with torch.no_grad():
        logits = peer(input_ids=inputs["input_ids"], pixel_values=exact).logits_per_image
        assert (logits - bundle.model.get_logits(pixels, tokens)[0]).abs().max() < 1e-5

    back = clip_core.load(folder)
    assert back.config == config
    assert all(torch.equal(value, bundle.model.state_dict()[key]) for key, value in back.model.state_dict().items())


def test_half_precision_is_exported_as_it_is(tmp_path: Path) -> None:
    held = build(model(24, vit(), text(vocab_size=300)), precision="bf16")
    for layout in ("open_clip", "transformers"):
        back = clip_core.load(clip_core.export(Bundle.of(held), tmp_path / layout, layout), precision="bf16")
        assert all(torch.equal(value, held.state_dict()[key]) for key, value in back.model.state_dict().items())


def test_transformers_loads_an_export_of_siglip(tmp_path: Path, photo: PIL.Image.Image) -> None:
    bundle = drawn(SIGLIP)
    folder = clip_core.export(bundle, tmp_path / "out", layout="transformers")
    peer = transformers.SiglipModel.from_pretrained(folder).eval()
    pixels = bundle.preprocess(photo)[None]
    theirs = transformers.SiglipImageProcessorPil.from_pretrained(folder)(photo, return_tensors="pt")["pixel_values"]
    assert (theirs - pixels).abs().max() < 1e-5
    tokens = torch.randint(0, 60, (3, 16))
    with torch.no_grad():
        wanted = peer(input_ids=tokens, pixel_values=theirs).logits_per_image
        assert (wanted - bundle.model.get_logits(pixels, tokens)[0]).abs().max() < 2e-5
    back = clip_core.load(folder)
    # The architecture's name in timm is found by its sizes, which are nobody's here; the model is the same.
    assert {key.partition(".")[0] for key in differences(back.config, SIGLIP)} <= {"image", "tokenizer"}
    before, after = bundle.model.state_dict(), back.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(after[key], value) for key, value in before.items())


TIMM: dict[str, ClipConfig] = {
    "plain": model(24, vit(), text(vocab_size=99)),
    "quick gelu": model(24, vit(activation="quick_gelu"), text(vocab_size=99)),
    "no norm before, layer scale": model(24, vit(pre_norm=False, layer_scale=0.1), text(vocab_size=99)),
    "a trunk of timm": SIGLIP,
    "a trunk with a linear head": model(
        24,
        TimmConfig(
            name="convnext_atto",
            image_size=64,
            pool="avg",
            projection="linear",
            options=(("depths", (1, 1, 1, 1)), ("dims", (8, 16, 24, 32))),
        ),
        text(vocab_size=99),
        mean=INCEPTION_MEAN,
        std=INCEPTION_STD,
        resize_mode="squash",
    ),
}


@pytest.mark.skipif(
    torch.__version__.startswith("2.6."),
    reason="torch.load reads no safetensors, for timm",
)
@pytest.mark.parametrize("name", TIMM)
def test_timm_loads_the_image_tower(tmp_path: Path, photo: PIL.Image.Image, name: str) -> None:
    bundle = drawn(TIMM[name])
    folder = clip_core.export(bundle, tmp_path / "out", layout="timm")
    # As the model cards' "getting started" has it, with "hf-hub:" for a repository.
    peer = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(peer), is_training=False)
    pixels = bundle.preprocess(photo)
    assert torch.equal(transform(photo), pixels)
    with torch.no_grad():
        wanted, got = peer(pixels[None]), bundle.model.encode_image(pixels[None])
    assert wanted.shape == got.shape
    assert (wanted - got).abs().max() < 1e-5 * max(1.0, float(wanted.abs().max()))


REFUSED = {
    "layer scale": (model(24, vit(layer_scale=0.1), text()), "transformers", "image.layer_scale is 0.1; CLIPModel"),
    "a pool": (
        model(24, vit(attention_pool=AttentionPoolConfig(queries=4, heads=8)), text()),
        "transformers",
        "image.attention_pool is .*clip_core.save.*'open_clip'",
    ),
    "a resnet": (
        model(24, ResNetConfig(image_size=32, layers=(1, 1, 1, 1), width=16, heads=8), text()),
        "transformers",
        "CLIPModel has a plain ViT .* not 'modified_resnet'",
    ),
    "letterbox": (model(24, vit(), text(), resize_mode="longest"), "transformers", "resize_mode is 'longest'"),
    "a bias": (model(24, vit(), text(), logit_bias=-10.0), "transformers", "logit_bias is -10.0; CLIPModel"),
    "another trunk": (TIMM["a trunk with a linear head"], "transformers", "SiglipModel has one of timm's"),
    "a resnet in timm": (
        model(24, ResNetConfig(image_size=32, layers=(1, 1, 1, 1), width=16, heads=8), text()),
        "timm",
        "ViTs and towers of timm",
    ),
    "an average in timm": (model(24, vit(pool="average"), text()), "timm", "image.pool is 'average'; timm's CLIP"),
    "no layout": (model(24, vit(), text()), "onnx", "layout is 'onnx'; allowed: 'open_clip', 'transformers', 'timm'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_layout_cannot_express_is_refused_with_what_can(tmp_path: Path, name: str) -> None:
    config, layout, message = REFUSED[name]
    with pytest.raises(ConfigError, match=message):
        clip_core.export(drawn(config), tmp_path / "out", layout)
    assert list(tmp_path.iterdir()) == []


def test_an_export_appears_whole_or_not_at_all(
    tmp_path: Path, tiny: clip_core.Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = clip_core.export(tiny, tmp_path / "out")
    with pytest.raises(ConfigError, match="pass overwrite=True to replace a open_clip export"):
        clip_core.export(tiny, folder)
    with pytest.raises(ConfigError, match="holds more than a bundle"):
        clip_core.save(tiny, folder, overwrite=True)
    clip_core.export(tiny, folder, overwrite=True)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(*_: object, **__: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    for target, overwrite in ((folder, True), (tmp_path / "new", False)):
        with pytest.raises(StorageError, match="Cannot write the open_clip export .* No space left on device"):
            clip_core.export(tiny, target, overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_vocabulary_that_is_not_clip_s_is_noticed(tmp_path: Path, tiny: clip_core.Bundle) -> None:
    folder = clip_core.export(drawn(model(24, vit(), text())), tmp_path / "out", layout="transformers")
    assert clip_core.load(folder).config.tokenizer.kind == "clip_bpe"
    vocabulary = json.loads((folder / "vocab.json").read_text())
    first, second = list(vocabulary)[:2]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    assert clip_core.load(folder).config.tokenizer.kind == "hf"


def test_crops_of_transformers_lie_at_most_one_pixel_off(tmp_path: Path) -> None:
    folder = clip_core.export(drawn(model(24, vit(), text(vocab_size=99))), tmp_path / "out", layout="transformers")
    transform, processor = clip_core.load(folder).preprocess, transformers.CLIPImageProcessorPil.from_pretrained(folder)
    rows = np.linspace(0, 255, 35).astype("uint8")
    image = PIL.Image.fromarray(np.repeat(np.repeat(rows[:, None, None], 32, 1), 3, 2))
    ours, theirs = transform(image), processor(image, return_tensors="pt")["pixel_values"][0]
    # Of three rows too many torchvision cuts two off above, transformers one.
    assert (ours[:, :-1] - theirs[:, 1:]).abs().max() < 1e-5


@pytest.mark.parametrize("layout", ["open_clip", "transformers"])
def test_another_library_s_folder_loads_by_its_own_name_only(tmp_path: Path, layout: Any) -> None:
    bundle = clip_core.create("tiny-quickgelu")
    folder = clip_core.export(bundle, tmp_path / "out", layout)
    found = clip_core.create("tiny-quickgelu", pretrained=folder)
    assert torch.equal(found.model.text_projection, bundle.model.text_projection)
    with pytest.raises(
        clip_core.CheckpointMismatch,
        match="image.activation is 'quick_gelu' there, 'gelu' asked.*Its architecture is 'tiny-quickgelu'",
    ):
        clip_core.create_model("tiny", pretrained=folder)
    if layout == "transformers":
        (folder / "preprocessor_config.json").unlink()
        assert clip_core.create("tiny-quickgelu", pretrained=folder).config == bundle.config
