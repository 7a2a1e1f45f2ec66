"""The layers of every kind of tower, which locking and learning rates by layer count."""

from __future__ import annotations

import dataclasses

import pytest
from torch import nn

import clip_core
from clip_core.building import build
from clip_core.towers.locking import Group

# One model for each kind of tower; what is in no group belongs to the head.
IMAGES = {
    "tiny": "",
    "RN50": "",
    "coca_ViT-B-32": "attn_pool",
    "convnext_base": "",
    "EVA02-B-16": "",
    "ViT-B-16-SigLIP": "",
    "MobileCLIP-B": "",
}
TEXTS = {
    "tiny": "",
    "coca_ViT-B-32": "",
    "roberta-ViT-B-32": "",
    "xlm-roberta-base-ViT-B-32": "",
    "mt5-base-ViT-B-32": "",
}


def parameters(group: Group) -> list[nn.Parameter]:
    return [p for member in group for p in ([member] if isinstance(member, nn.Parameter) else member.parameters())]


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_tower_is_in_groups(name: str) -> None:
    model = clip_core.create_model(name, device="meta")
    groups = model.visual.layer_groups()
    held = [id(parameter) for group in groups for parameter in parameters(group)]
    assert len(held) == len(set(held))
    missing = {n for n, p in model.visual.named_parameters() if id(p) not in held}
    assert all(IMAGES[name] and n.startswith((IMAGES[name], "ln_post", "proj")) for n in missing), missing
    assert all(parameters(group) for group in groups)
    first = next(n for n, p in model.visual.named_parameters() if id(p) == held[0])
    assert any(word in first for word in ("conv1", "stem", "patch", "pos_embed", "cls_token", "class")), first


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("apart", [False, True])
def test_a_text_tower_is_in_groups(name: str, apart: bool) -> None:
    model = clip_core.create_model(name, device="meta")
    groups = model.text_tower.text_layer_groups(pooling_apart=apart)
    held = [id(parameter) for group in groups for parameter in parameters(group)]
    assert len(held) == len(set(held))
    assert all(parameters(group) for group in groups)
    tower = model.text_tower
    names = {n for n, p in tower.named_parameters() if id(p) not in held}
    assert all(n.startswith(("visual.", "logit_", "transformer.final_layer_norm")) for n in names), names


def test_pooling_can_be_apart() -> None:
    held = clip_core.get_config("roberta-ViT-B-32")
    model = build(dataclasses.replace(held, text=dataclasses.replace(held.text, pool="cls")), device="meta")  # type: ignore[arg-type]
    tower = model.text_tower
    pooling = {id(parameter) for parameter in model.get_submodule("text.transformer.pooler").parameters()}
    for apart in (False, True):
        *_, before, last = ({id(p) for p in parameters(g)} for g in tower.text_layer_groups(pooling_apart=apart))
        assert pooling <= (before if apart else last)
        assert not pooling & (last if apart else before)
