"""Models by the name of their architecture: create one, with its transforms and its tokenizer beside it.

Names of published weights belong to clip-hub.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from pathlib import Path

import torch

from clip_core.building import Precision, build
from clip_core.bundle import Bundle
from clip_core.config import ClipConfig, Size
from clip_core.config.values import as_argument
from clip_core.convert.checkpoint import Checkpoint, differences
from clip_core.convert.reading import FILE_SUFFIXES, fitting_names
from clip_core.errors import CheckpointMismatch, ConfigError, UnknownModel
from clip_core.model import Clip
from clip_core.preprocess import AugmentConfig, Transform, build_transform
from clip_core.presets import QUICK_GELU_SUFFIX, get_config, list_models, split_name
from clip_core.storage import folder_of, open_checkpoint
from clip_core.tokenizer import Tokenizer, build_tokenizer

__all__ = ["create", "create_model", "create_model_and_transforms", "get_tokenizer"]

log = logging.getLogger(__name__)

_said: set[tuple[str, Path]] = set()  # what this process has warned of


def create_model(
    name: str,
    pretrained: str | os.PathLike[str] | None = None,
    precision: Precision = "fp32",
    device: str | torch.device = "cpu",
    *,
    image_size: Size | None = None,
    context_length: int | None = None,
    ema: bool | None = None,
) -> Clip:
    """The architecture `name` in evaluation mode, with the weights of `pretrained` or freshly drawn ones.

    Args:
        name: one of `list_models()`.
        pretrained: a weights file of OpenCLIP, OpenAI, big_vision (`.npz`) or PaddleNLP (`.pdparams`); or a folder: a
            bundle, one in OpenCLIP's layout, or one of transformers. A file of a folder like these is read with the
            configuration that lies beside it. A tag needs `clip_hub.create_model`.
        precision: dtype of the parameters: "fp32", "bf16" or "fp16".
        device: "meta" builds the layout without memory, and reads and checks no weights.
        image_size: pixels of the images' sides, one number or (height, width), where not the architecture's own.
        context_length: most tokens of a text, where not the architecture's own. The preprocessing and the tokenizer
            change with it, and positions of weights that were trained with another size are interpolated.
        ema: for a file that holds weights and their moving average: True takes the average, False the others.

    Raises:
        UnknownModel: no such architecture; the nearest names are listed.
        ConfigError: `pretrained` is neither a file nor a folder, or a folder that cannot be understood.
        CheckpointMismatch: the weights cannot be read or do not fit; or they state another model, activation or
            preprocessing than `name`: the message names the right one.
    """
    config = _config_of(name).resized(image_size, context_length)
    weights = _find_weights(name, config, pretrained, image_size, context_length, ema)
    try:
        return build(config, weights, precision=precision, device=device)
    except CheckpointMismatch as error:
        names = fitting_names(weights.path, ema=ema) if weights is not None and weights.config is None else []
        if not names or split_name(name)[0] in names:
            raise
        raise CheckpointMismatch(
            f"{error} By their sizes they could be of {', '.join(names)}; {name!r} was asked."
        ) from error


def create_model_and_transforms(
    name: str,
    pretrained: str | os.PathLike[str] | None = None,
    precision: Precision = "fp32",
    device: str | torch.device = "cpu",
    *,
    augment: AugmentConfig | None = None,
    image_size: Size | None = None,
    context_length: int | None = None,
    ema: bool | None = None,
) -> tuple[Clip, Transform, Transform]:
    """As `create_model`, with the training transform and the evaluation transform: (model, train, eval)."""
    model = create_model(
        name, pretrained, precision, device, image_size=image_size, context_length=context_length, ema=ema
    )
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
    ema: bool | None = None,
    tokenizer: str | os.PathLike[str] | None = None,
) -> Bundle:
    """As `create_model`, with the transform and the tokenizer beside the model.

    `tokenizer` is the folder with the vocabulary; models with CLIP's own tokenizer need none, and a bundle has its
    own. Without one the bundle encodes images, and its tokenizer raises when it is used.

    Raises:
        ConfigError: also if `tokenizer` has no vocabulary or another model's.
    """
    # Before the weights: what is wrong with a vocabulary shows at once.
    config = _config_of(name).resized(image_size, context_length).tokenizer
    given = None if tokenizer is None else build_tokenizer(config, tokenizer)
    model = create_model(
        name, pretrained, precision, device, image_size=image_size, context_length=context_length, ema=ema
    )
    bundle = Bundle.of(model, folder_of(pretrained) if pretrained else None)
    return bundle if given is None else dataclasses.replace(bundle, tokenizer=given)


def get_tokenizer(
    name: str, context_length: int | None = None, folder: str | os.PathLike[str] | None = None
) -> Tokenizer:
    """The tokenizer of architecture `name`, for its own context length unless another is asked for.

    Raises:
        ConfigError: it is not CLIP's own, and `folder` does not have its vocabulary; the message says where it is from.
    """
    config = _config_of(name).tokenizer
    if context_length is not None:
        with as_argument("context_length"):
            config = dataclasses.replace(config, context_length=context_length)
    return build_tokenizer(config, folder)


def _config_of(name: str) -> ClipConfig:
    try:
        return get_config(name)
    except UnknownModel as error:
        if not isinstance(name, str) or "/" not in name:
            raise
        raise UnknownModel(
            f"{error} If this is a folder with a model, open it with clip_core.load({name!r}). Published weights "
            "come by architecture and tag with clip-hub, as in clip_hub.load('ViT-B-32:openai')."
        ) from error


def _find_weights(
    name: str,
    config: ClipConfig,
    pretrained: str | os.PathLike[str] | None,
    image_size: Size | None,
    context_length: int | None,
    ema: bool | None,
) -> Checkpoint | None:
    # An empty string is how open_clip's commands say "none".
    if pretrained is None or pretrained == "":
        return None
    path = Path(pretrained)
    if not path.exists():
        if path.suffix in FILE_SUFFIXES or len(path.parts) > 1:
            raise ConfigError(
                f"There is no file or folder {str(pretrained)!r}; give the path of weights, of a bundle, or of another "
                "checkpoint folder."
            )
        raise ConfigError(
            f"pretrained={str(pretrained)!r} is neither a file nor a folder. clip-core opens local weights only; for a "
            "published tag install clip-hub and call clip_hub.create_model with the same arguments."
        )
    found = open_checkpoint(path, config, ema=ema)
    if found.config is None:
        _warn_of_activation(name, path)
        return found
    held = found.config.resized(image_size, context_length)
    different = differences(config, held)
    if different:
        fields = ", ".join(f"{key} is {theirs!r} there, {ours!r} asked" for key, (ours, theirs) in different.items())
        fitting = _name_of(found.config)
        raise CheckpointMismatch(
            f"{path} ({found.layout}) holds another model than {name!r}: {fields}. "
            + (f"Its architecture is {fitting!r}: ask for that name, or load" if fitting else "Load")
            + f" it as it is with clip_core.load({str(path)!r})."
        )
    return found


def _warn_of_activation(name: str, path: Path) -> None:
    """Log, once per name and file, that the weights in `path` may be those of the name with OpenAI's activation.

    Both have the same tensors. A name that ends in "-quickgelu" says which is meant.
    """
    base, quick_gelu = split_name(name)
    twin = base + QUICK_GELU_SUFFIX
    told = (base, path.resolve())
    if quick_gelu or twin not in list_models() or told in _said:
        return
    _said.add(told)
    log.warning(
        "%s does not say its activation; GELU is assumed, as in %s. If it was trained with QuickGELU, as OpenAI's "
        "models were, its features are wrong: ask for %r.",
        path,
        base,
        twin,
    )


def _name_of(held: ClipConfig) -> str | None:
    """The architecture that `held` is, if it has a name."""
    for name in (*list_models(), *(f"{name}{QUICK_GELU_SUFFIX}" for name in list_models())):
        if not name.endswith(QUICK_GELU_SUFFIX * 2):
            try:
                config = get_config(name)
            except ConfigError:
                continue  # another library's towers choose no activation
            if not differences(config, held):
                return name
    return None
