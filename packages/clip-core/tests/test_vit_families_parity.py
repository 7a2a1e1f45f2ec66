"""Names of the plain transformers, clip_core.presets.vit, clipa and worldwide, against open_clip 3.3.0's own tables.

Keys and shapes of every name at full size are in test_model.py; here the features of one of each family are compared,
made small: the peer's model from the peer's table, ours from ours, both shrunk in the same way.
"""

from __future__ import annotations

import dataclasses

import open_clip
import pytest
import torch

import clip_core
from clip_core.building import build
from clip_core.config import HfTokenizerConfig, TextConfig, VitConfig
from clip_core.presets import clipa, vit, worldwide

pytestmark = pytest.mark.parity

NAMES = [
    "ViT-B-32",
    "ViT-L-14-336-quickgelu",
    "ViT-M-16-alt",
    "ViT-H-14-CLIPA-336",
    "ViT-L-14-worldwide",
    "ViT-H-14-worldwide-quickgelu",
    "ViT-bigG-14-worldwide-378",
]


@pytest.mark.parametrize("name", NAMES)
def test_features_and_gradients_equal_open_clip_from_its_own_table(name: str) -> None:
    config = clip_core.get_config(name)
    assert isinstance(config.image, VitConfig)
    assert isinstance(config.text, TextConfig)
    patch = config.image.patch_size
    small = dataclasses.replace(
        config.resized(image_size=2 * patch),
        embed_dim=24,
        image=dataclasses.replace(config.image, image_size=2 * patch, width=32, layers=2, heads=2, mlp_dim=128),
        text=dataclasses.replace(config.text, vocab_size=600, width=32, layers=2, heads=4, mlp_dim=128),
    )
    table = open_clip.get_model_config(name)
    table["vision_cfg"] |= {"image_size": 2 * patch, "width": 32, "layers": 2, "head_width": 16, "mlp_ratio": 4.0}
    table["text_cfg"] |= {"vocab_size": 600, "width": 32, "layers": 2, "heads": 4}
    torch.manual_seed(0)
    peer = open_clip.model.CLIP(**{**table, "embed_dim": 24})
    with torch.no_grad():
        for parameter in peer.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    ours = build(small)
    ours.load_state_dict(peer.state_dict(), strict=True)

    images = torch.randn(3, 3, 2 * patch, 2 * patch)
    tokens = torch.randint(3, 599, (3, config.text.context_length))
    tokens[0, 7], tokens[0, 8:] = config.text.eos_id or 599, 0
    tokens[1:, -1] = config.text.eos_id or 599
    outputs = ours(images, tokens)[:3], peer.eval()(images, tokens)
    for mine, theirs in zip(*outputs, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=0)
    for image_features, text_features, scale in outputs:
        (scale * image_features @ text_features.T).log_softmax(-1).diagonal().mean().backward()
    gradients = {key: parameter.grad for key, parameter in peer.named_parameters()}
    for key, parameter in ours.named_parameters():
        largest = gradients[key].abs().max().item()
        torch.testing.assert_close(parameter.grad, gradients[key], rtol=1e-4, atol=1e-5 * largest + 1e-9, msg=key)


def test_every_plain_name_of_open_clip_is_there() -> None:
    theirs = {
        name
        for name in open_clip.list_models()
        if not (table := open_clip.get_model_config(name)).get("custom_text")
        and isinstance(table["vision_cfg"].get("layers"), int)
        and "timm_model_name" not in table["vision_cfg"]
        and "hf_model_name" not in table["text_cfg"]
    }
    ours = {*vit.PRESETS, *clipa.PRESETS, *worldwide.PRESETS} - {"tiny"}
    quick = {f"{name}-quickgelu" for name in (*vit.PUBLISHED_WITH_QUICK_GELU, *worldwide.PUBLISHED_WITH_QUICK_GELU)}
    assert ours | quick == theirs


@pytest.mark.parametrize("name", ["ViT-H-14-378", "ViT-H-14-378-quickgelu"])
def test_the_plain_model_for_378_pixels_takes_squashed_images_as_its_weights_do(name: str) -> None:
    modes = {
        open_clip.get_pretrained_cfg(name, tag)["resize_mode"] for tag in open_clip.list_pretrained_tags_by_model(name)
    }
    assert modes == {clip_core.get_config(name).preprocess.resize_mode}


@pytest.mark.parametrize("name", [*clipa.PRESETS, *worldwide.PRESETS])
def test_inputs_are_what_open_clip_states_for_the_published_weights(name: str) -> None:
    config = clip_core.get_config(name)
    text = open_clip.get_model_config(name)["text_cfg"]
    assert isinstance(config.tokenizer, HfTokenizerConfig)
    assert config.tokenizer.source == text["hf_tokenizer_name"]
    options = text.get("tokenizer_kwargs", {})
    assert config.tokenizer.clean == options.get("clean", "whitespace")
    assert config.tokenizer.drop_separator == options.get("strip_sep_token", False)
    for tag in open_clip.list_pretrained_tags_by_model(name):
        published = open_clip.get_pretrained_cfg(name, tag)
        for field in ("mean", "std", "interpolation", "resize_mode"):
            assert getattr(config.preprocess, field) == published[field], (tag, field)
