"""A checkpoint of timm -> the image tower of a model that exists: a start for training, as OpenCLIP's
`--pretrained-image`.

The tower may be timm's own, or the vision transformer of `towers.vit`, which timm has as its CLIP transformers. timm's
classifier is left out unless it is the projection; writing is in `timm`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clip_core.config import TimmConfig, VitConfig
from clip_core.convert.checkpoint import read_json, require
from clip_core.convert.pairs import with_patch_bias
from clip_core.convert.timm import VIT_BLOCK
from clip_core.errors import CheckpointMismatch, ConfigError, listed
from clip_core.model import Clip
from clip_core.weights import SUFFIXES, read_weights

__all__ = ["fill", "find_weights", "load_image_tower"]

log = logging.getLogger(__name__)

_CONFIG = "config.json"
_FILES = ("model.safetensors", "pytorch_model.bin")
_ACTIVATIONS = {"GELU": "gelu", "GELUTanh": "gelu_tanh", "QuickGELU": "quick_gelu"}
# Modules without parameters that say nothing of what a model computes in evaluation.
_SILENT = ("Identity", "Dropout", "DropPath", "PatchDropout", "Flatten", "AdaptiveAvgPool2d", "FastAdaptive")


def load_image_tower(model: Clip, path: str | os.PathLike[str], *, ema: bool | None = None) -> list[str]:
    """Put the weights of a timm checkpoint into the image tower of `model`, in the dtype and on the device it has.

    Positions are interpolated to the tower's size, which is logged. The checkpoint's classifier is left out unless it
    has the width of the features and stands where the tower has its projection; it is logged which. A folder also
    says its architecture: one with another activation or another epsilon is refused. A file alone does not say it.

    Args:
        model: its image tower is one of timm, or a plain vision transformer.
        path: a folder with timm's `config.json` and weights, or a file of weights.
        ema: see `weights.read_weights`.

    Returns:
        The parameters of the tower that keep the values they had, by their names in `model`: its projection, mostly.

    Raises:
        ConfigError: this tower cannot be timm's, or the folder has no `config.json` of timm.
        CheckpointMismatch: the weights cannot be read or are those of another tower; the model is as it was.
    """
    path = Path(path)
    image, tower = model.config.image, model.visual
    if isinstance(image, VitConfig):
        _require_plain(image)
    elif not isinstance(image, TimmConfig):
        raise ConfigError(f"The image tower is of kind {image.kind!r}; allowed: 'vit', 'timm', 'naflex'.")
    stated: Any = None
    if path.is_dir():
        stated = _stated_model(path)
        _require_alike(image, getattr(tower, "trunk", None), stated, path)
        path = find_weights(path, _FILES)
    tensors = read_weights(path, ema=ema)
    if isinstance(image, VitConfig):
        found = _vit(tensors, image, model.config.embed_dim)
        optional = {"proj"}
    else:
        trunk: Any = tower.trunk
        heads = _classifiers(trunk.pretrained_cfg) if stated is None else _classifiers(stated.pretrained_cfg)
        found = {f"trunk.{key}": value for key, value in tensors.items()}
        optional = {key for key, _ in tower.named_parameters() if key.startswith("head.")}
        for head in heads:
            for part in ("weight", "bias"):
                key = f"trunk.{head}.{part}"
                ours = dict(tower.named_parameters()).get(key)
                if ours is not None:
                    optional.add(key)
                if ours is None or key not in found or ours.shape != found[key].shape:
                    found.pop(key, None)
    kept = fill(tower, tower.adapt_weights(found), optional, path)
    log.info("The image tower has the weights of %s; %s keep theirs", path, ", ".join(kept) or "no other parameters")
    return [f"visual.{key}" for key in kept]


def find_weights(folder: Path, names: tuple[str, ...]) -> Path:
    """The first file of `names` in `folder`, or its only file of weights; raises `CheckpointMismatch` without one."""
    for name in names:
        if (folder / name).is_file():
            return folder / name
    others = sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES)
    if len(others) != 1:
        raise CheckpointMismatch(f"{folder} has {len(others)} weights files; allowed: {names[0]}, or one of any name.")
    return others[0]


def fill(tower: nn.Module, tensors: Mapping[str, Tensor], optional: set[str], source: object) -> list[str]:
    """Copy `tensors` into `tower`; what is `optional` may be missing and is returned then, sorted.

    Raises:
        CheckpointMismatch: something else is missing or left over, or a shape differs; nothing is copied then.
    """
    wanted = tower.state_dict(keep_vars=True)
    kept = sorted(key for key in optional if key not in tensors)
    problems = {
        "missing": [key for key in wanted if key not in tensors and key not in optional],
        "unexpected": [key for key in tensors if key not in wanted],
        "shapes differ": [
            f"{key} is {tuple(tensors[key].shape)}, the tower has {tuple(value.shape)}"
            for key, value in wanted.items()
            if key in tensors and tensors[key].shape != value.shape
        ],
    }
    if any(problems.values()):
        found = "; ".join(f"{title}: {listed(names)}" for title, names in problems.items() if names)
        raise CheckpointMismatch(f"The weights in {source} are not those of this tower ({found}).")
    if any(value.is_meta for value in wanted.values()):
        raise ConfigError("The model is on the meta device and has no values to replace; create it on 'cpu' or a GPU.")
    with torch.no_grad():
        for key, value in tensors.items():
            wanted[key].copy_(value)
    return kept


def _require_plain(image: VitConfig) -> None:
    require(
        "a tower with timm's weights can only have",
        ("image.attention_pool", image.attention_pool, None),
        ("image.norm_after_pool", image.norm_after_pool, False),
        ("image.dense_pool", image.dense_pool, False),
        ("image.positions", image.positions, "learned"),
    )


def _stated_model(folder: Path) -> Any:
    """The model of timm that the `config.json` in `folder` names, on the meta device."""
    import timm

    settings = read_json(folder / _CONFIG)
    name = settings.get("architecture")
    if not isinstance(name, str) or not timm.is_model(name):
        raise ConfigError(
            f"{folder / _CONFIG} has architecture {name!r}; allowed: one of timm.list_models() of timm "
            f"{timm.__version__}. OpenCLIP's and transformers' folders are for clip_core.load."
        )
    # timm writes these two beside the arguments, among them, or both.
    arguments = {key: settings[key] for key in ("num_classes", "global_pool") if settings.get(key) is not None}
    arguments |= settings.get("model_args") or {}
    try:
        with torch.device("meta"):
            return timm.create_model(name, pretrained=False, **arguments)
    except (TypeError, AssertionError) as error:
        raise ConfigError(f"{folder / _CONFIG}: timm's {name} does not take {arguments}: {error}.") from error


def _require_alike(image: VitConfig | TimmConfig, trunk: Any, stated: Any, folder: Path) -> None:
    """Refuse what shapes do not show: another activation, another epsilon, other numbers of heads."""
    if isinstance(image, VitConfig):
        blocks = getattr(stated, "blocks", None)
        if not isinstance(blocks, nn.Sequential | nn.ModuleList) or not hasattr(blocks[0], "attn"):
            raise CheckpointMismatch(f"{folder} is a {type(stated).__name__} of timm; the tower is a plain ViT.")
        first: Any = blocks[0]
        held: Mapping[str, Any] = {
            "activation": _ACTIVATIONS.get(type(first.mlp.act).__name__, type(first.mlp.act).__name__),
            "norm_eps": first.norm1.eps,
            "heads": first.attn.num_heads,
        }
        asked: Mapping[str, Any] = {key: getattr(image, key) for key in held}
    else:
        held, asked = _unseen(stated), _unseen(trunk)
    for key, value in held.items():
        if asked[key] != value:
            raise CheckpointMismatch(
                f"The weights in {folder} are of a tower with {key} {value!r}, and this one has {asked[key]!r}. "
                "Create a model whose image tower is that one."
            )


def _unseen(model: Any) -> dict[str, Any]:
    """What a model of timm computes beside its parameters: kinds of modules, epsilons, heads."""
    modules = list(model.modules())
    plain = {type(m).__name__ for m in modules if not any(m.children()) and not any(True for _ in m.parameters())}
    return {
        "modules": sorted(name for name in plain if not name.startswith(_SILENT)),
        "norm_eps": sorted({m.eps for m in modules if isinstance(getattr(m, "eps", None), float)}),
        "heads": sorted({m.num_heads for m in modules if isinstance(getattr(m, "num_heads", None), int)}),
    }


def _classifiers(settings: Mapping[str, Any]) -> tuple[str, ...]:
    found = settings.get("classifier") or "head"
    return (found,) if isinstance(found, str) else tuple(found)


def _vit(tensors: Mapping[str, Tensor], image: VitConfig, embed_dim: int) -> dict[str, Tensor]:
    """The tensors of one of timm's CLIP transformers under the names and in the shapes of our tower."""
    left = dict(tensors)
    try:
        found = {
            "class_embedding": left.pop("cls_token").flatten(),
            "positional_embedding": left.pop("pos_embed")[0],
            "conv1.weight": left.pop("patch_embed.proj.weight"),
        }
        bias = left.pop("patch_embed.proj.bias", None)
        if bias is not None:
            found["positional_embedding"] = with_patch_bias(found["positional_embedding"], bias)
    except KeyError as error:
        raise CheckpointMismatch(
            f"The checkpoint lacks {error.args[0]}; allowed: timm's vision transformers with a class token."
        ) from error
    weight, bias = left.pop("head.weight", None), left.pop("head.bias", None)
    # With a bias it is no projection; with another width it classifies.
    if weight is not None and len(weight) == embed_dim and (bias is None or not bias.any()):
        found["proj"] = weight.T
    names = {"norm": "ln_post", "norm_pre": "ln_pre"}
    for layer in range(image.layers):
        ours, theirs = f"transformer.resblocks.{layer}.", f"blocks.{layer}."
        names |= {f"{theirs}{other}": f"{ours}{mine}" for mine, other in VIT_BLOCK.items()}
        names |= {f"{theirs}ls{number}": f"{ours}ls_{number}" for number in (1, 2)}
        names[f"{theirs}attn.qkv"] = f"{ours}attn.in_proj"
    for key, value in left.items():
        module, _, part = key.rpartition(".")
        mine = names.get(module, module)
        found[f"{mine}{'_' if mine.endswith('in_proj') else '.'}{part}" if module else part] = value
    return found
