from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest

import clip_core
from clip_core.building import build
from clip_core.errors import ConfigError
from clip_train import OptimConfig
from clip_train.param_groups import has_weight_decay, layer_scales, parameter_groups


def named(model: clip_core.Clip, groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """`groups` with the names of their parameters in place of them."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [{**group, "params": [names[id(parameter)] for parameter in group["params"]]} for group in groups]


def test_what_decays_in_a_clip_model() -> None:
    model = clip_core.create_model("tiny", device="meta")
    decays = {name for name, parameter in model.named_parameters() if has_weight_decay(name, parameter)}
    assert {
        "token_embedding.weight",
        "positional_embedding",
        "text_projection",
        "visual.conv1.weight",
        "visual.proj",
        "visual.transformer.resblocks.0.attn.in_proj_weight",
        "transformer.resblocks.1.mlp.c_fc.weight",
    } <= decays
    assert not {name for name in decays if "ln_" in name or "bias" in name}
    assert not decays & {"logit_scale", "visual.class_embedding"}


def test_patterns_take_parameters_out_of_the_decay() -> None:
    model = clip_core.create_model("tiny", device="meta")
    plain, decayed = named(model, parameter_groups(model, OptimConfig()))
    found = named(model, parameter_groups(model, OptimConfig(wd_exclude=("*positional_embedding", "visual.proj"))))
    moved = {"positional_embedding", "visual.positional_embedding", "visual.proj"}
    assert moved <= set(decayed["params"])
    assert set(found[0]["params"]) == set(plain["params"]) | moved
    assert set(found[1]["params"]) == set(decayed["params"]) - moved
    with pytest.raises(ConfigError, match="positional_embeding"):
        parameter_groups(model, OptimConfig(wd_exclude=("*positional_embeding",)))


def test_each_layer_learns_at_its_share() -> None:
    model = clip_core.create_model("tiny", device="meta")
    scales = layer_scales(model, OptimConfig(image_layer_decay=0.5, text_layer_decay=0.8))
    blocks = {"visual.": len(model.visual.transformer.resblocks), "": len(model.transformer.resblocks)}  # type: ignore[arg-type,union-attr]
    for name, parameter in model.named_parameters():
        if name == "logit_scale":
            assert id(parameter) not in scales
            continue
        tower, decay = ("visual.", 0.5) if name.startswith("visual.") else ("", 0.8)
        block = re.search(r"resblocks\.(\d+)\.", name)
        # Below the projection, which is 0: the last block and the norm behind it 1, what is before the blocks n + 1.
        if name.endswith(("text_projection", "visual.proj")):
            depth = 0
        elif block or "ln_post" in name or "ln_final" in name:
            depth = blocks[tower] - int(block[1]) if block else 1
        else:
            depth = blocks[tower] + 1
        assert scales[id(parameter)] == pytest.approx(decay**depth), name
    assert not layer_scales(model, OptimConfig(image_layer_decay=1.0))


def test_groups_by_layers_hold_every_parameter_once_and_keep_the_decay() -> None:
    model = clip_core.create_model("tiny", device="meta")
    groups = named(model, parameter_groups(model, OptimConfig(text_layer_decay=0.7, wd=0.1)))
    assert sorted(name for group in groups for name in group["params"]) == sorted(dict(model.named_parameters()))
    shares = [group["lr_scale"] for group in groups]
    assert shares == sorted(shares, reverse=True)
    for group in groups:
        for name in group["params"]:
            assert group["weight_decay"] == (0.1 if has_weight_decay(name, model.get_parameter(name)) else 0)


def test_pooling_is_a_layer_of_its_own_where_it_is_asked_for() -> None:
    held = clip_core.get_config("roberta-ViT-B-32")
    model = build(dataclasses.replace(held, text=dataclasses.replace(held.text, pool="cls")), device="meta")  # type: ignore[arg-type]
    together = layer_scales(model, OptimConfig(text_layer_decay=0.5))
    apart = layer_scales(model, OptimConfig(text_layer_decay=0.5, text_pooler_own_group=True))
    parameter = model.get_parameter("text.transformer.pooler.dense.weight")
    assert (together[id(parameter)], apart[id(parameter)]) == (1.0, 0.5)
