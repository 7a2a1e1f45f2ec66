"""A model's image tower -> a checkpoint of timm: its `config.json` and tensors. Reading is in `image_tower`.

timm's own CLIP transformers have the projection as their classifier layer, with a bias that is zero here; a tower that
already is timm's goes out as it is, with a linear head of ours in the place of the classifier.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from clip_core.config import ClipConfig, TimmConfig, VitConfig, size_pair
from clip_core.convert.checkpoint import require
from clip_core.convert.openclip_writing import ratio
from clip_core.errors import ConfigError

__all__ = ["VIT", "VIT_BLOCK", "to_timm", "vit_arguments", "vit_tensors"]

VIT = "vit_base_patch32_clip_224"
"""Any of timm's CLIP transformers; the sizes are arguments."""
_VIT_EPS = 1e-5
VIT_BLOCK = {
    "ln_1": "norm1",
    "ln_2": "norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "attn.proj",
}
"""Modules of a block: ours -> timm's."""


def to_timm(config: ClipConfig, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The `config.json` and the tensors of the image tower; timm's model then gives the features, not normalised.

    Raises:
        ConfigError: timm has no such model; says which part of it.
    """
    import timm

    image = config.image
    visual = {key.removeprefix("visual."): value for key, value in tensors.items() if key.startswith("visual.")}
    if isinstance(image, VitConfig):
        architecture, arguments, found = VIT, vit_arguments(image), vit_tensors(image, visual)
        pool, width, fixed = "token", image.width, True
    elif isinstance(image, TimmConfig):
        architecture, arguments = image.name, dict(image.options)
        known = timm.get_pretrained_cfg(image.name)
        pool, width, fixed = image.pool, config.embed_dim, known is not None and known.fixed_input_size
        found = _trunk_tensors(
            visual, image.projection, str(known.classifier) if known is not None and known.classifier else "head"
        )
        arguments |= {"img_size": list(size_pair(image.image_size))} if fixed else {}
    else:
        raise ConfigError(f"timm's {image.kind!r} is another one; the layout 'timm' can hold ViTs and towers of timm.")
    classes = 0 if isinstance(image, TimmConfig) and image.projection == "none" else config.embed_dim
    preprocess = config.preprocess
    size = [3, *size_pair(preprocess.size)]
    return {
        "architecture": architecture,
        "num_classes": classes,
        "num_features": width,
        "global_pool": pool,
        "model_args": arguments,
        "pretrained_cfg": {
            "tag": "clip",
            "custom_load": False,
            "input_size": size,
            "fixed_input_size": fixed,
            "interpolation": preprocess.interpolation,
            "crop_pct": 1.0,
            "crop_mode": {"shortest": "center", "squash": "squash", "longest": "border"}[preprocess.resize_mode],
            "mean": list(preprocess.mean),
            "std": list(preprocess.std),
            "num_classes": classes,
            "pool_size": None,
            "first_conv": None,
            "classifier": None,
        },
    }, found


def vit_arguments(image: VitConfig) -> dict[str, Any]:
    """What makes timm's `VIT` a transformer of the sizes of `image`; raises `ConfigError` where it cannot be one."""
    require(
        "timm's CLIP transformers can only be",
        ("image.pool", image.pool, "token"),
        ("image.attention_pool", image.attention_pool, None),
        ("image.norm_eps", image.norm_eps, _VIT_EPS),
        ("image.dense_pool", image.dense_pool, False),
    )
    arguments: dict[str, Any] = {
        "img_size": list(size_pair(image.image_size)),
        "patch_size": image.patch_size,
        "embed_dim": image.width,
        "depth": image.layers,
        "num_heads": image.heads,
        "mlp_ratio": ratio(image.width, image.mlp_dim),
        "act_layer": image.activation,
        "pre_norm": image.pre_norm,
    }
    return arguments if image.layer_scale is None else {**arguments, "init_values": image.layer_scale}


def vit_tensors(image: VitConfig, visual: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of `towers.vit` by timm's names, the projection as the classifier."""
    projection = visual["proj"]
    found = {
        "cls_token": visual["class_embedding"][None, None],
        "pos_embed": visual["positional_embedding"][None],
        "patch_embed.proj.weight": visual["conv1.weight"],
        "head.weight": projection.T,
        "head.bias": torch.zeros(projection.shape[1], dtype=projection.dtype),
    }
    names = {"ln_post": "norm"}
    if image.pre_norm:
        names["ln_pre"] = "norm_pre"
    else:
        # timm leaves this bias out before a norm alone.
        found["patch_embed.proj.bias"] = torch.zeros(image.width, dtype=projection.dtype)
    for layer in range(image.layers):
        ours, theirs = f"transformer.resblocks.{layer}.", f"blocks.{layer}."
        names |= {f"{ours}{mine}": f"{theirs}{other}" for mine, other in VIT_BLOCK.items()}
        for part in ("weight", "bias"):
            found[f"{theirs}attn.qkv.{part}"] = visual[f"{ours}attn.in_proj_{part}"]
        if image.layer_scale is not None:
            for number in (1, 2):
                found[f"{theirs}ls{number}.gamma"] = visual[f"{ours}ls_{number}.gamma"]
    for mine, other in names.items():
        for part in ("weight", "bias"):
            found[f"{other}.{part}"] = visual[f"{mine}.{part}"]
    return found


def _trunk_tensors(visual: Mapping[str, Tensor], projection: str, classifier: str) -> dict[str, Tensor]:
    found = {key.removeprefix("trunk."): value for key, value in visual.items() if key.startswith("trunk.")}
    if projection == "mlp":
        raise ConfigError("image.projection is 'mlp'; timm's models have at most one layer behind the pooling.")
    if projection == "linear":
        weight = visual["head.proj.weight"]
        found |= {f"{classifier}.weight": weight, f"{classifier}.bias": torch.zeros(len(weight), dtype=weight.dtype)}
    return found
