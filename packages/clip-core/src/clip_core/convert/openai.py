"""OpenAI's original checkpoints, as a state dict: OpenCLIP's names (which are theirs) and three numbers beside them.

`input_resolution`, `context_length` and `vocab_size` mark the format. Sizes are read off the shapes, heads have 64
channels, and the activation is quick GELU: every model that OpenAI published was trained so (Radford et al. 2021).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from clip_core.config import ClipConfig, ResNetConfig, TextConfig, VitConfig, size_pair
from clip_core.errors import CheckpointMismatch, ConfigError
from clip_core.presets import parts

__all__ = ["MARKS", "from_clip", "infer_config", "is_openai", "to_clip"]

MARKS = ("input_resolution", "context_length", "vocab_size")
_HEAD_WIDTH = 64


def is_openai(tensors: Mapping[str, Tensor]) -> bool:
    """Whether these are OpenAI's weights in OpenAI's own layout."""
    return all(key in tensors for key in MARKS)


def to_clip(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """OpenAI's tensors -> those of a model in the flat layout."""
    return {key: value for key, value in tensors.items() if key not in MARKS}


def from_clip(tensors: Mapping[str, Tensor], config: ClipConfig) -> dict[str, Tensor]:
    """The tensors of a model in the flat layout -> OpenAI's; `infer_config` gives `config` back.

    Raises:
        ConfigError: OpenAI's format cannot say what this model is.
    """
    numbers = {
        "input_resolution": size_pair(config.image.image_size)[0],
        "context_length": config.text.context_length,
        "vocab_size": config.text.vocab_size,
    }
    found = {**tensors, **{key: torch.tensor(value) for key, value in numbers.items()}}
    inferred = infer_config(found) if "visual.conv1.weight" in tensors and "text_projection" in tensors else None
    if inferred != config:
        raise ConfigError(
            "OpenAI's layout holds no configuration: it means CLIP with a plain ViT or a modified ResNet, quick GELU, "
            f"heads of {_HEAD_WIDTH} channels and OpenAI's preprocessing. This model is another one."
        )
    return found


def infer_config(tensors: Mapping[str, Tensor]) -> ClipConfig:
    """The model that tensors in the flat layout belong to, if OpenAI trained it.

    Raises:
        CheckpointMismatch: a tensor that says a size is missing.
    """
    try:
        image = _vit(tensors) if "visual.proj" in tensors else _resnet(tensors)
        width = tensors["ln_final.weight"].shape[0]
        text = TextConfig(
            context_length=tensors["positional_embedding"].shape[0],
            vocab_size=tensors["token_embedding.weight"].shape[0],
            width=width,
            layers=_count(tensors, "transformer.resblocks."),
            heads=width // _HEAD_WIDTH,
            mlp_dim=tensors["transformer.resblocks.0.mlp.c_fc.weight"].shape[0],
            activation="quick_gelu",
        )
        return parts.model(tensors["text_projection"].shape[1], image, text)
    except (KeyError, ConfigError, IndexError) as error:
        raise CheckpointMismatch(
            f"These weights have OpenAI's layout and still do not state a CLIP model of theirs ({error})."
        ) from error


def _vit(tensors: Mapping[str, Tensor]) -> VitConfig:
    width, _, patch_size, _ = tensors["visual.conv1.weight"].shape
    side = _side(tensors["visual.positional_embedding"])
    return VitConfig(
        image_size=side * patch_size,
        patch_size=patch_size,
        width=width,
        layers=_count(tensors, "visual.transformer.resblocks."),
        heads=width // _HEAD_WIDTH,
        mlp_dim=tensors["visual.transformer.resblocks.0.mlp.c_fc.weight"].shape[0],
        activation="quick_gelu",
    )


def _resnet(tensors: Mapping[str, Tensor]) -> ResNetConfig:
    width = tensors["visual.layer1.0.conv1.weight"].shape[0]
    one, two, three, four = (_count(tensors, f"visual.layer{stage}.") for stage in (1, 2, 3, 4))
    return ResNetConfig(
        image_size=_side(tensors["visual.attnpool.positional_embedding"]) * 32,
        layers=(one, two, three, four),
        width=width,
        heads=width * 32 // _HEAD_WIDTH,
    )


def _side(positions: Tensor) -> int:
    """Patches along one side of the square that these positions, the class token's among them, lie on."""
    return math.isqrt(positions.shape[0] - 1)


def _count(tensors: Mapping[str, Tensor], prefix: str) -> int:
    return len({key.removeprefix(prefix).partition(".")[0] for key in tensors if key.startswith(prefix)})
