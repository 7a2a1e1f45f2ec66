"""The table of sizes against models of open_clip on the meta device, and against figures that others published."""

from __future__ import annotations

import itertools
import logging
from typing import Any

import open_clip
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

import clip_core
from clip_core.config import HfTextConfig
from clip_hub.registry import all_tags
from clip_hub.sizes import SIZES

pytestmark = pytest.mark.parity

FAMILIES = ["ViT-B-32", "RN50", "ViT-B-16-SigLIP", "MobileCLIP2-S0"]


class Counting(TorchDispatchMode):
    """Counts operations, and the numbers that convolutions and matrix products write; attention is two products."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = self.activations = 0

    def __torch_dispatch__(self, function: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
        packet, kwargs = function._overloadpacket, kwargs or {}
        if packet not in flop_registry:
            with self:
                made = function.decompose(*args, **kwargs)
            if made is not NotImplemented:
                return made
        made = function(*args, **kwargs)
        if packet in flop_registry:
            self.operations += flop_registry[packet](*args, **kwargs, out_val=made)
            self.activations += (made[0] if isinstance(made, tuple) else made).numel()
            if "scaled_dot_product" in str(packet):
                query, key = args[:2]
                self.activations += query.shape[0] * query.shape[1] * query.shape[2] * key.shape[2]
        return made


@torch.no_grad()
def count(encode: Any, batch: torch.Tensor) -> tuple[float, float]:
    with Counting() as counting:
        encode(batch)
    return counting.operations / 1e9, counting.activations / 1e6


@pytest.mark.parametrize("name", FAMILIES)
def test_costs_are_those_of_open_clips_model(name: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    model = open_clip.create_model(name, device="meta", load_weights=False).eval()
    config = clip_core.get_config(name)
    size = config.preprocess.size
    image = torch.zeros(1, 3, size, size, device="meta")
    text = torch.zeros(1, config.text.context_length, dtype=torch.long, device="meta")
    row = SIZES[name]
    found = (*count(model.encode_image, image), *count(model.encode_text, text))
    written = (row.image_gflops, row.image_activations, row.text_gflops, row.text_activations)
    assert found == pytest.approx(written, abs=0.0051)
    assert sum(parameter.numel() for parameter in model.parameters()) / 1e6 == pytest.approx(row.parameters, abs=0.0051)


def test_every_architecture_with_weights_has_a_size_and_no_other() -> None:
    assert set(SIZES) == {row.model for row in all_tags()}


# OpenCLIP's published profile: parameters / 10^6, operations / 10^9 of an image and of a text.
PROFILE = {
    "ViT-L-14": (427.62, 162.03, 13.30),
    "ViT-H-14-378": (986.71, 1006.96, 47.09),
    "ViT-bigG-14": (2539.57, 967.50, 97.86),
    "ViT-B-16-plus-240": (208.38, 54.76, 9.27),
    "RN50x64": (623.26, 529.11, 23.55),
    "convnext_xxlarge": (1200.58, 395.94, 47.09),
    "EVA02-E-14-plus": (5044.89, 2264.33, 97.86),
    "coca_ViT-L-14": (638.45, 163.64, 13.30),
    "ViT-SO400M-14-SigLIP-384": (877.96, 670.35, 53.13),
    "ViT-H-14-CLIPA-336": (968.64, 781.45, 19.43),
}


@pytest.mark.parametrize(("name", "profile"), PROFILE.items())
def test_costs_are_those_that_openclip_published(name: str, profile: tuple[float, float, float]) -> None:
    row = SIZES[name]
    assert (row.parameters, row.image_gflops, row.text_gflops) == pytest.approx(profile, abs=0.011)


def test_ratios_on_the_card_of_the_convnext_soup_hold() -> None:
    vit, convnext = SIZES["ViT-L-14-336"], SIZES["convnext_large_d_320"]
    assert round(vit.gflops / convnext.gflops, 1) == 2.5
    assert round(vit.activations / convnext.activations, 1) == 2.8
    assert round(vit.parameters / convnext.parameters, 2) == 1.22


# Of transformers' encoders OpenCLIP counted longer texts than the models read: their number of positions.
LONG_TEXTS = {"nllb-clip-base": (1024, 360.78), "nllb-clip-large": (1024, 1133.87)}


def encoder(name: str, tokens: int) -> tuple[float, float]:
    """Operations / 10^9 and activations / 10^6 of a text encoder of transformers, from its sizes."""
    config = clip_core.get_config(name)
    text = config.text
    assert isinstance(text, HfTextConfig)
    settings = dict(text.settings)
    layers, heads, inner = (
        next(settings[key] for key in keys if key in settings)
        for keys in (
            ("num_hidden_layers", "encoder_layers"),
            ("num_attention_heads", "encoder_attention_heads"),
            ("intermediate_size", "encoder_ffn_dim"),
        )
    )
    width = text.width
    operations = layers * (2 * tokens * (4 * width**2 + 2 * width * inner) + 4 * tokens**2 * width)
    activations = layers * (tokens * (6 * width + inner) + heads * tokens**2)
    # What makes features of the encoder's width: one layer, or two with the mean of the widths between.
    widths = [width, config.embed_dim] if text.projection == "linear" else None
    widths = widths or [width, (width + config.embed_dim) // 2, config.embed_dim]
    operations += sum(2 * one * other for one, other in itertools.pairwise(widths))
    return operations / 1e9, (activations + sum(widths[1:])) / 1e6


@pytest.mark.parametrize(("name", "published"), LONG_TEXTS.items())
def test_the_count_of_an_encoder_is_the_published_one_for_long_texts(name: str, published: tuple[int, float]) -> None:
    tokens, operations = published
    assert encoder(name, tokens)[0] == pytest.approx(operations, abs=0.011)


@pytest.mark.parametrize("name", [name for name in SIZES if "roberta" in name or "nllb" in name])
def test_costs_of_encoders_of_transformers_are_of_the_texts_that_they_read(name: str) -> None:
    row = SIZES[name]
    found = encoder(name, clip_core.get_config(name).text.context_length)
    assert found == pytest.approx((row.text_gflops, row.text_activations), abs=0.0051)
    images = {"nllb-clip-base-siglip": "ViT-B-16-SigLIP-384", "nllb-clip-large-siglip": "ViT-SO400M-14-SigLIP-384"}
    tower = images.get(name, "ViT-H-14" if "large" in name else "ViT-B-32")
    assert (row.image_gflops, row.image_activations) == (SIZES[tower].image_gflops, SIZES[tower].image_activations)
