"""A vision transformer, plain or of timm -> timm's NaFlexVit with the same weights, which takes images of any shape.

On images of the size that the transformer was made for both give the same features; what the new tower does with other
ones has to be trained. open_clip's `--force-naflex-vision` does this. What this room leaves out: building the model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from clip_core.config import ClipConfig, NaFlexConfig, Options, TimmConfig, VitConfig, size_pair
from clip_core.convert.timm import VIT, vit_arguments, vit_tensors
from clip_core.errors import ConfigError
from clip_core.towers.timm_tower import build_trunk

__all__ = ["to_naflex_config", "to_naflex_tensors"]

_MODULES = ("vision_transformer", "eva")
"""Of timm; it has NaFlexVit in the place of these models for the asking."""


def to_naflex_config(config: ClipConfig) -> ClipConfig:
    """`config` with a NaFlex tower in the place of its image tower; itself where it has one.

    An image has as many patches as that of the tower's own size. Raises `ConfigError` for a tower that cannot be one,
    and for a size that is not of whole patches.
    """
    image = config.image
    if isinstance(image, NaFlexConfig):
        return config
    if isinstance(image, VitConfig):
        arguments: dict[str, Any] = {**vit_arguments(image), "use_naflex": True}
        dropout: float | None = image.patch_dropout
        name, patch_size, pool, projection = VIT, image.patch_size, "token", "linear"
    elif isinstance(image, TimmConfig) and _is_transformer(image.name):
        arguments = {**dict(image.options), "img_size": size_pair(image.image_size), "use_naflex": True}
        if image.pool == "map" and _is_transformer(image.name, ("eva",)):
            # There the pooling looks at the class token, too, where NaFlexVit leaves it out.
            arguments["pool_include_prefix"] = True
        name, pool, projection, dropout = image.name, image.pool, image.projection, image.patch_dropout
        patch_size = _patch_size(image, config.embed_dim)
    else:
        kind = f"timm's {image.name}" if isinstance(image, TimmConfig) else f"of kind {image.kind!r}"
        raise ConfigError(f"The image tower is {kind}; allowed for NaFlex: vision transformers, timm's and plain ones.")
    height, width = size_pair(image.image_size)
    whole = height - height % patch_size, width - width % patch_size
    if whole != (height, width):
        raise ConfigError(
            f"Images of {height} x {width} are not of whole patches of {patch_size}, as NaFlex needs them; "
            f"{whole[0]} x {whole[1]} are, with the same patches (`image_size`, clip-train's --force-image-size)."
        )
    options: Options = tuple(
        sorted((key, tuple(value) if isinstance(value, list) else value) for key, value in arguments.items())
    )
    tower = NaFlexConfig(
        name=name,
        image_size=image.image_size,
        patch_size=patch_size,
        max_patches=(height // patch_size) * (width // patch_size),
        pool=pool,  # type: ignore[arg-type]  # one of the two towers' own words
        projection=projection,  # type: ignore[arg-type]
        head_dropout=image.head_dropout,
        drop_path=image.drop_path,
        patch_dropout=dropout,
        options=options,
    )
    return dataclasses.replace(config, image=tower)


def to_naflex_tensors(config: ClipConfig, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`tensors` of a model of `config` as those of `to_naflex_config(config)`; what is not of the image tower stays."""
    image = config.image
    if isinstance(image, NaFlexConfig):
        return dict(tensors)
    visual = {key.removeprefix("visual."): value for key, value in tensors.items() if key.startswith("visual.")}
    found = {key: value for key, value in tensors.items() if not key.startswith("visual.")}
    if isinstance(image, VitConfig):
        trunk = vit_tensors(image, visual)
        found["visual.head.proj.weight"] = trunk.pop("head.weight").contiguous()
        del trunk["head.bias"]
    else:
        trunk = {key.removeprefix("trunk."): value for key, value in visual.items() if key.startswith("trunk.")}
        found |= {f"visual.{key}": value for key, value in visual.items() if not key.startswith("trunk.")}
    tower = to_naflex_config(config).image
    assert isinstance(tower, NaFlexConfig)
    height, width = (length // tower.patch_size for length in size_pair(tower.image_size))
    return found | {f"visual.trunk.{key}": value for key, value in _renamed(trunk, (height, width)).items()}


def _renamed(trunk: Mapping[str, Tensor], grid: tuple[int, int]) -> dict[str, Tensor]:
    """Tensors of a transformer of timm by NaFlexVit's names; `grid` is that of its table of positions."""
    found = dict(trunk)
    for name in ("cls_token", "reg_token"):
        if name in found:
            found[f"embeds.{name}"] = found.pop(name)
    if "pos_embed" in found:
        table = found.pop("pos_embed")
        # A table may have places for the tokens before the patches, which NaFlexVit's has not: they are added up.
        before = table.shape[1] - grid[0] * grid[1]
        if before:
            found["embeds.cls_token"] = found["embeds.cls_token"] + table[:, :1]
        if before > 1:
            found["embeds.reg_token"] = found["embeds.reg_token"] + table[:, 1:before]
        found["embeds.pos_embed"] = table[:, before:].reshape(1, *grid, -1)
    for name in [name for name in found if name.startswith("patch_embed.")]:
        value = found.pop(name)
        is_kernel = name == "patch_embed.proj.weight"
        found[name.replace("patch_embed.", "embeds.")] = value.permute(0, 2, 3, 1).flatten(1) if is_kernel else value
    return {name: value.contiguous() for name, value in found.items()}


def _is_transformer(name: str, modules: tuple[str, ...] = _MODULES) -> bool:
    from timm.models import is_model, is_model_in_modules

    return is_model(name) and bool(is_model_in_modules(name, modules))


def _patch_size(image: TimmConfig, embed_dim: int) -> int:
    with torch.device("meta"):
        trunk = build_trunk(image, embed_dim)
    side: tuple[int, int] = tuple(trunk.patch_embed.patch_size)
    if side[0] != side[1]:
        raise ConfigError(f"The patches of timm's {image.name} are {side}; allowed for NaFlex: square ones.")
    return side[0]
