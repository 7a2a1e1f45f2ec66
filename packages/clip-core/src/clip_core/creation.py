"""Models by the name of their architecture: create one, with its transforms and its tokenizer beside it.

Names of published weights belong to clip-hub.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import torch

from clip_core.building import Precision, build
from clip_core.bundle import Bundle
from clip_core.config import ClipConfig, Size
from clip_core.errors import CheckpointMismatch, ConfigError
from clip_core.model import Clip
from clip_core.preprocess import AugmentConfig, Transform, build_transform
from clip_core.presets import get_config
from clip_core.storage import WEIGHTS_FILE, read_config
from clip_core.tokenizer import Tokenizer, build_tokenizer
from clip_core.weights import SUFFIXES

__all__ = ["create", "create_model", "create_model_and_transforms", "get_tokenizer"]


def create_model(
    name: str,
    pretrained: str | os.PathLike[str] | None = None,
    precision: Precision = "fp32",
    device: str | torch.device = "cpu",
    *,
    image_size: Size | None = None,
    context_length: int | None = None,
) -> Clip:
    """The architecture `name` in evaluation mode, with the weights of `pretrained` or freshly drawn ones.

    Args:
        name: one of `list_models()`.
        pretrained: a weights file in OpenCLIP's layout, or a bundle folder; a tag needs `clip_hub.create_model`.
        precision: dtype of the parameters: "fp32", "bf16" or "fp16".
        device: "meta" builds the layout without memory.
        image_size: pixels of the images' sides, one number or (height, width), where not the architecture's own.
        context_length: most tokens of a text, where not the architecture's own. The preprocessing and the tokenizer
            change with it, and positions of weights that were trained with another size are interpolated.

    Raises:
        UnknownModel: no such architecture; the nearest names are listed.
        ConfigError: `pretrained` is neither a file nor a folder, or a folder with another configuration.
        CheckpointMismatch: the weights cannot be read or do not fit.
    """
    config = get_config(name).resized(image_size, context_length)
    weights = _find_weights(name, config, pretrained, image_size, context_length)
    return build(config, weights, precision=precision, device=device)


def create_model_and_transforms(
    name: str,
    pretrained: str | os.PathLike[str] | None = None,
    precision: Precision = "fp32",
    device: str | torch.device = "cpu",
    *,
    augment: AugmentConfig | None = None,
    image_size: Size | None = None,
    context_length: int | None = None,
) -> tuple[Clip, Transform, Transform]:
    """As `create_model`, with the training transform and the evaluation transform: (model, train, eval)."""
    model = create_model(name, pretrained, precision, device, image_size=image_size, context_length=context_length)
    preprocess = model.config.preprocess
    return model, build_transform(preprocess, train=True, augment=augment), build_transform(preprocess)


def create(
    name: str,
    pretrained: str | os.PathLike[str] | None = None,
    precision: Precision = "fp32",
    device: str | torch.device = "cpu",
    *,
    image_size: Size | None = None,
    context_length: int | None = None,
    tokenizer: str | os.PathLike[str] | None = None,
) -> Bundle:
    """As `create_model`, with the transform and the tokenizer beside the model.

    `tokenizer` is the folder with the vocabulary; models with CLIP's own tokenizer need none, and a bundle has its
    own. Without one the bundle encodes images, and its tokenizer raises when it is used.

    Raises:
        ConfigError: also if `tokenizer` has no vocabulary or another model's.
    """
    # Before the weights: what is wrong with a vocabulary shows at once.
    config = get_config(name).resized(image_size, context_length).tokenizer
    given = None if tokenizer is None else build_tokenizer(config, tokenizer)
    model = create_model(name, pretrained, precision, device, image_size=image_size, context_length=context_length)
    bundle = Bundle.of(model, pretrained if pretrained and Path(pretrained).is_dir() else None)
    return bundle if given is None else dataclasses.replace(bundle, tokenizer=given)


def get_tokenizer(
    name: str, context_length: int | None = None, folder: str | os.PathLike[str] | None = None
) -> Tokenizer:
    """The tokenizer of architecture `name`, for its own context length unless another is asked for.

    Raises:
        ConfigError: it is not CLIP's own, and `folder` does not have its vocabulary; the message says where it is from.
    """
    config = get_config(name).tokenizer
    if context_length is not None:
        config = dataclasses.replace(config, context_length=context_length)
    return build_tokenizer(config, folder)


def _find_weights(
    name: str,
    config: ClipConfig,
    pretrained: str | os.PathLike[str] | None,
    image_size: Size | None,
    context_length: int | None,
) -> Path | None:
    # An empty string is how open_clip's commands say "none".
    if pretrained is None or pretrained == "":
        return None
    path = Path(pretrained)
    if path.is_file():
        return path
    if path.is_dir():
        held = read_config(path).resized(image_size, context_length)
        if held != config:
            raise CheckpointMismatch(
                f"The bundle {path} holds another model than {name!r}: {_difference(config, held)}. "
                f"Load it as it is with clip_core.load({str(path)!r})."
            )
        return path / WEIGHTS_FILE
    if path.suffix in SUFFIXES or len(path.parts) > 1:
        raise ConfigError(f"There is no file or folder {str(pretrained)!r}; give the path of weights or of a bundle.")
    raise ConfigError(
        f"pretrained={str(pretrained)!r} is neither a file nor a folder. clip-core opens local weights only; for a "
        "published tag install clip-hub and call clip_hub.create_model with the same arguments."
    )


def _difference(asked: ClipConfig, held: ClipConfig) -> str:
    """The fields in which two configurations differ, as "text.activation is 'quick_gelu' there, 'gelu' asked"."""

    def flat(value: object, prefix: str) -> dict[str, object]:
        if isinstance(value, dict):
            return {k: v for key, item in value.items() for k, v in flat(item, f"{prefix}{key}.").items()}
        return {prefix.rstrip("."): value}

    ours, theirs = flat(asked.to_json(), ""), flat(held.to_json(), "")
    return ", ".join(
        f"{key} is {theirs.get(key)!r} there, {ours.get(key)!r} asked"
        for key in {**ours, **theirs}
        if ours.get(key) != theirs.get(key)
    )
