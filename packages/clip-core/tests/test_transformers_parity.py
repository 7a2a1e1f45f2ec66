"""`clip_core.convert` against transformers: folders that it wrote are loaded, from pixels to logits.

Covers clip_core.convert.transformers_clip, transformers_siglip, transformers_dual, transformers_preprocess, pairs and
reading.
"""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import torch

import clip_core
from clip_core.convert.checkpoint import differences
from clip_core.errors import CheckpointMismatch, ConfigError
from clip_core.preprocess_naflex import build_patch_transform, stack_patches

transformers = pytest.importorskip("transformers", minversion="5.0")  # its image processors have other names before

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

SIZES = {"hidden_size": 32, "intermediate_size": 72, "num_hidden_layers": 2, "num_attention_heads": 4}
VISION = {**SIZES, "image_size": 32, "patch_size": 8}
TEXT = {**SIZES, "vocab_size": 50, "max_position_embeddings": 16, "eos_token_id": 49, "bos_token_id": 48}
SQUARE = {"height": 32, "width": 32}
SHORTEST = {"size": {"shortest_edge": 32}, "crop_size": SQUARE}


def clip(tmp_path: Path, activation: str = "quick_gelu", **text: Any) -> Any:
    config = transformers.CLIPConfig(
        text_config={**TEXT, "hidden_act": activation, **text},
        vision_config={**VISION, "hidden_act": activation},
        projection_dim=24,
    )
    processor = transformers.CLIPImageProcessorPil(**SHORTEST)
    return saved(transformers.CLIPModel(config), processor, tmp_path)


def siglip(tmp_path: Path) -> Any:
    config = transformers.SiglipConfig(text_config=TEXT, vision_config=VISION)
    processor = transformers.SiglipImageProcessorPil(size=SQUARE)
    return saved(transformers.SiglipModel(config), processor, tmp_path)


def chinese(tmp_path: Path) -> Any:
    config = transformers.ChineseCLIPConfig(
        text_config={**TEXT, "eos_token_id": None, "bos_token_id": 0}, vision_config=VISION, projection_dim=24
    )
    processor = transformers.ChineseCLIPImageProcessorPil(size=SQUARE, do_center_crop=False)
    return saved(transformers.ChineseCLIPModel(config), processor, tmp_path)


def dual(tmp_path: Path, vision: Any, text: Any) -> Any:
    config = transformers.VisionTextDualEncoderConfig.from_vision_text_configs(vision, text, projection_dim=24)
    processor = transformers.ViTImageProcessorPil(size=SQUARE)
    return saved(transformers.VisionTextDualEncoderModel(config), processor, tmp_path)


def vit_and_roberta(tmp_path: Path) -> Any:
    text = transformers.RobertaConfig(**SIZES, vocab_size=50, max_position_embeddings=18, hidden_act="gelu")
    return dual(tmp_path, transformers.ViTConfig(**VISION), text)


def clip_and_bert(tmp_path: Path) -> Any:
    text = transformers.BertConfig(**SIZES, vocab_size=50, max_position_embeddings=16)
    return dual(tmp_path, transformers.CLIPVisionConfig(**VISION), text)


def saved(model: Any, processor: Any, folder: Path) -> Any:
    """`model` in evaluation mode with weights that are nowhere zero or one, written with its image processor."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return model, processor


def texts(pad_id: int, end_id: int) -> torch.Tensor:
    """Rows as a tokenizer gives them: start, ids, the end, padding."""
    rows = torch.full((4, 16), pad_id)
    for row, length in enumerate((3, 16, 7, 4)):
        ids = torch.randint(3, 48, (length,), generator=torch.Generator().manual_seed(row))
        ids[0], ids[-1] = 48, end_id
        rows[row, :length] = ids
    return rows


FOLDERS = {
    "clip with gelu": (lambda path: clip(path, "gelu"), 0, 49),
    "clip with quick gelu": (clip, 0, 49),
    "clip with the end in the middle": (lambda path: clip(path, eos_token_id=30), 0, 30),
    "clip with the old end": (lambda path: clip(path, eos_token_id=2), 0, 49),
    "siglip": (siglip, 1, 2),
    "chinese clip": (chinese, 0, 49),
    "vit and roberta": (vit_and_roberta, 1, 2),
    "clip and bert": (clip_and_bert, 0, 49),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_gives_the_same_numbers_from_pixels_to_logits(
    tmp_path: Path, photo: PIL.Image.Image, name: str
) -> None:
    make, pad_id, end_id = FOLDERS[name]
    model, processor = make(tmp_path)
    bundle = clip_core.load(tmp_path)

    images = [photo, photo.rotate(90, expand=True), photo.crop((0, 0, 64, 64))]
    theirs = processor(images, return_tensors="pt")["pixel_values"]
    ours = torch.stack([bundle.preprocess(image) for image in images])
    assert (ours - theirs).abs().max() < 1e-5

    tokens = texts(pad_id, end_id)
    # SigLIP reads its padding, and CLIP cannot see it.
    mask = {"attention_mask": (tokens != pad_id).long()} if bundle.config.text.kind == "hf" else {}
    with torch.no_grad():
        wanted = model(input_ids=tokens, pixel_values=theirs, **mask).logits_per_image
        got, _ = bundle.model.get_logits(ours, tokens)
    assert wanted.std() > 1e-3
    assert (got - wanted).abs().max() < 1e-5 * max(1.0, float(wanted.abs().max()))


@pytest.mark.parametrize("name", ["clip with quick gelu", "siglip"])
def test_a_folder_comes_back_from_ours_bit_for_bit(tmp_path: Path, name: str) -> None:
    model, _ = FOLDERS[name][0](tmp_path / "theirs")
    bundle = clip_core.load(tmp_path / "theirs")
    again = type(model).from_pretrained(clip_core.export(bundle, tmp_path / "ours", "transformers"))
    assert again.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in again.state_dict().items())
    back = clip_core.load(tmp_path / "ours")
    assert not differences(back.config, bundle.config)
    assert all(torch.equal(value, bundle.model.state_dict()[key]) for key, value in back.model.state_dict().items())


def test_what_a_configuration_leaves_out_is_what_transformers_takes(tmp_path: Path) -> None:
    for make, kind in ((transformers.CLIPConfig, "clip"), (transformers.SiglipConfig, "siglip")):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "config.json").write_text(json.dumps({"model_type": kind}))
        make().save_pretrained(tmp_path / f"{kind}-whole")
        for folder in (tmp_path / kind, tmp_path / f"{kind}-whole"):
            (folder / "preprocessor_config.json").write_text(
                json.dumps({"image_processor_type": f"{make.__name__[:-6]}ImageProcessor"})
            )
        bare = clip_core.storage.open_checkpoint(tmp_path / kind).config
        whole = clip_core.storage.open_checkpoint(tmp_path / f"{kind}-whole").config
        assert bare is not None
        assert whole is not None
        assert {**bare.to_json(), "tokenizer": 0} == {**whole.to_json(), "tokenizer": 0}


def test_shards_and_torch_files_are_read(tmp_path: Path) -> None:
    model, _ = clip(tmp_path / "whole")
    model.save_pretrained(tmp_path / "shards", max_shard_size="40KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    clip(tmp_path / "torch")
    (tmp_path / "torch" / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "torch" / "pytorch_model.bin")
    for name in ("preprocessor_config.json",):
        (tmp_path / "shards" / name).write_bytes((tmp_path / "whole" / name).read_bytes())
    wanted = clip_core.load(tmp_path / "whole").model.state_dict()
    for folder in ("shards", "torch"):
        found = clip_core.load(tmp_path / folder).model.state_dict()
        assert all(torch.equal(found[key], value) for key, value in wanted.items())


def change(path: Path, **values: Any) -> None:
    content = json.loads(path.read_text())
    for key, value in values.items():
        *outer, last = key.split("__")
        place = content
        for name in outer:
            place = place[name]
        place[last] = value
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("file", "values", "error", "message"),
    [
        ("config.json", {"model_type": "blip"}, ConfigError, "model_type 'blip'; allowed: 'clip' .CLIPModel"),
        ("config.json", {"vision_config__hidden_act": "relu"}, ConfigError, "vision_config.hidden_act is 'relu'"),
        ("config.json", {"vision_config__num_channels": 4}, ConfigError, "num_channels is 4; allowed: 3"),
        ("config.json", {"text_config__num_hidden_layers": 3}, CheckpointMismatch, "missing: text_model.encoder.lay"),
        ("config.json", {"text_config__num_hidden_layers": 1}, CheckpointMismatch, "unexpected: text_model.encoder"),
        ("preprocessor_config.json", {"do_rescale": False}, ConfigError, "do_rescale = false"),
        ("preprocessor_config.json", {"resample": 1}, ConfigError, "resample = 1; allowed: 2 .bilinear"),
        ("preprocessor_config.json", {"size": {"shortest_edge": 40}}, ConfigError, "scales images to .*40"),
        ("preprocessor_config.json", {"rescale_factor": 1.0}, ConfigError, "rescale_factor = 1.0"),
        ("preprocessor_config.json", {"image_processor_type": "BlipImageProcessor"}, ConfigError, "of a BlipImage"),
    ],
)
def test_what_cannot_be_expressed_is_refused_by_name(
    tmp_path: Path, file: str, values: Any, error: Any, message: str
) -> None:
    clip(tmp_path)
    change(tmp_path / file, **values)
    with pytest.raises(error, match=message):
        clip_core.load(tmp_path)


@pytest.mark.parametrize("make", [clip, siglip, chinese])
def test_a_folder_without_preprocessing_says_how_to_state_it(tmp_path: Path, make: Any) -> None:
    make(tmp_path)
    stated = clip_core.load(tmp_path).config.preprocess
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(ConfigError, match=r"has no preprocessor_config.json.*clip_core.create\(NAME") as refused:
        clip_core.load(tmp_path)
    assert clip_core.load(tmp_path, preprocess=stated).config.preprocess == stated
    with pytest.raises(ConfigError, match="a size equal to the image tower's image_size 32"):
        clip_core.load(tmp_path, preprocess=dataclasses.replace(stated, size=64))
    [call] = re.findall(r"write it with (transformers\..*?); or", str(refused.value))
    eval(call, {"transformers": transformers})
    assert clip_core.load(tmp_path).config.preprocess == stated


def test_preprocessing_that_contradicts_the_folder_is_refused(tmp_path: Path) -> None:
    clip(tmp_path)
    stated = clip_core.load(tmp_path).config.preprocess
    assert clip_core.load(tmp_path, preprocess=stated).config.preprocess == stated
    with pytest.raises(ConfigError, match="states its preprocessing, .*; leave preprocess out"):
        clip_core.load(tmp_path, preprocess=dataclasses.replace(stated, interpolation="bilinear"))


def test_preprocessing_in_a_processor_file_and_without_normalising(tmp_path: Path) -> None:
    clip(tmp_path)
    path = tmp_path / "preprocessor_config.json"
    change(path, do_normalize=False, resample=2, size=32, crop_size=32)
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": json.loads(path.read_text())}))
    path.unlink()
    held = clip_core.load(tmp_path).config.preprocess
    assert (held.mean, held.std, held.interpolation) == ((0, 0, 0), (1, 1, 1), "bilinear")
    assert held.resize_mode == "shortest"


@pytest.mark.parametrize("positions", [9, 144], ids=["positions made denser", "positions made sparser"])
def test_siglip_2_reads_images_of_any_shape(tmp_path: Path, photo: PIL.Image.Image, positions: int) -> None:
    config = transformers.Siglip2Config(
        text_config=TEXT, vision_config={**SIZES, "patch_size": 8, "num_patches": positions, "image_size": None}
    )
    processor = transformers.Siglip2ImageProcessorPil(patch_size=8, max_num_patches=20)
    model, _ = saved(transformers.Siglip2Model(config), processor, tmp_path)
    bundle = clip_core.load(tmp_path)
    assert bundle.config.image.kind == "naflex"

    images = [photo, photo.rotate(90, expand=True), photo.crop((0, 0, 64, 64))]
    theirs = processor(images, return_tensors="pt")
    cut = build_patch_transform(bundle.config)
    ours = stack_patches([cut(image) for image in images])
    assert (ours["patches"] - theirs["pixel_values"]).abs().max() < 1e-5
    assert torch.equal(ours["patch_valid"].long(), theirs["pixel_attention_mask"].long())
    tokens = texts(1, 2)
    with torch.no_grad():
        wanted = model(input_ids=tokens, **theirs)
        features = torch.nn.functional.normalize(bundle.model.visual.patch_features(ours), dim=-1)
        assert (features - wanted.image_embeds).abs().max() < 1e-5
        assert (bundle.model.encode_text(tokens, normalize=True) - wanted.text_embeds).abs().max() < 1e-5
    with pytest.raises(ConfigError, match="Siglip2Model are read and not written. Layouts that can: a bundle"):
        clip_core.export(bundle, tmp_path / "export", "transformers")
