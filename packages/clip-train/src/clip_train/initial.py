"""The model that training begins with: architecture, sizes, initial weights, what is locked, precision.

What this room leaves out: the arithmetic of a pass (`precision`), adapters (`lora`), and the data.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import clip_core
import clip_hub
from clip_core import Clip, ClipConfig
from clip_core.building import build
from clip_core.config import ClipTokenizerConfig, HfTextConfig, NaFlexConfig, TimmConfig
from clip_core.convert.checkpoint import Checkpoint
from clip_core.convert.image_tower import load_image_tower
from clip_core.convert.naflex import to_naflex_config, to_naflex_tensors
from clip_core.convert.text_encoder import load_text_tower
from clip_core.errors import CheckpointMismatch, ConfigError
from clip_core.presets import QUICK_GELU_SUFFIX, split_name
from clip_core.presets.hf import SOURCES
from clip_core.storage import read_config, weights_of
from clip_core.tokenizer import MissingTokenizer, find_tokenizer
from clip_hub.drop_in.loading import fill_tower
from clip_hub.repository import HUB_PREFIX, fetch_model, fetch_vocabulary
from clip_train.config import AugmentConfig, ModelConfig, TrainConfig
from clip_train.lora import add_adapters
from clip_train.precision import lower_weights, require_possible

__all__ = ["augmentation", "build_bundle", "create_model"]

_log = logging.getLogger(__name__)

# Zhai et al. (2023), section 3.2, and what open_clip's --siglip makes of any model without weights.
_SIGLIP_SCALE, _SIGLIP_BIAS = math.log(10), -10.0
_LOCAL_PREFIX = "local-dir:"


def build_bundle(config: TrainConfig, device: torch.device) -> clip_core.Bundle:
    """The model with everything that `config` says of it, on `device`, with its tokenizer.

    Raises a `ClipError` for names, weights, sizes and precisions that are not there or do not fit.
    """
    torch.manual_seed(config.run.seed)
    given = config.model
    require_possible(config.run.precision, device)
    model = create_model(
        given.model, given.pretrained, quick_gelu=given.force_quick_gelu, cache_dir=given.cache_dir, sizes=given
    )
    fresh = not given.pretrained and not _brings_weights(given.model)
    if fresh:
        _begin_towers(model, given)
    elif given.pretrained_image:
        _log.info("--pretrained-image: not needed, the weights bring their image tower")
    for tower, path in (("visual", given.pretrained_image_path), ("text", given.pretrained_text_path)):
        if path is not None and not (Path(path).is_file() and fill_tower(model, tower, Path(path))):
            (load_image_tower if tower == "visual" else load_text_tower)(model, path)
    if config.naflex.use_naflex or config.naflex.force_naflex_vision:
        model = _as_naflex(model)
    if config.objective.siglip:
        _begin_siglip(model, fresh=fresh)
    # The model carries its configuration; what it is trained with is what it must later be used with.
    model.config = dataclasses.replace(model.config, preprocess=_preprocess(model.config, given))
    _lock(model, given)
    if given.grad_checkpointing:
        model.set_grad_checkpointing()
    if given.lora_rank is not None:
        if config.run.precision not in ("fp32", "amp", "amp_bf16"):
            raise ConfigError(f"precision is {config.run.precision!r}; allowed with lora_rank: fp32, amp, amp_bf16.")
        add_adapters(model, given)
    lower_weights(model, config.run.precision)
    return clip_core.Bundle.of(model.to(device), _vocabulary(model.config, given))


def create_model(
    name: str,
    pretrained: str,
    *,
    quick_gelu: bool = False,
    cache_dir: str | None = None,
    sizes: ModelConfig | None = None,
) -> Clip:
    """The architecture `name` with the weights that `pretrained` names, random ones where it is empty.

    Args:
        name: as `clip_core.create_model` takes it; or a model that brings its weights, "hf-hub:org/name" or
            "local-dir:FOLDER".
        pretrained: a tag, a file or a folder; a bundle of the same architecture with other preprocessing, too.
        quick_gelu: OpenAI's activation in both towers.
        cache_dir: where downloads are kept.
        sizes: its `force_*` fields change the model; positions are interpolated.

    Raises a `ClipError` as `clip_hub.create_model`.
    """
    if _brings_weights(name):
        if pretrained:
            raise ConfigError(
                f"pretrained is {pretrained!r}; allowed with the model {name!r}, which brings its own: ''."
            )
        place = name.removeprefix(_LOCAL_PREFIX) if name.startswith(_LOCAL_PREFIX) else name
        if name.startswith(_LOCAL_PREFIX) and not Path(place).is_dir():
            raise ConfigError(f"model is {name!r}, and there is no folder {place!r}.")
        model = clip_hub.load(place, cache_dir=cache_dir).model
        return _changed(model, model.config.with_activation("quick_gelu") if quick_gelu else model.config, sizes)
    if quick_gelu and not split_name(name)[1]:
        name += QUICK_GELU_SUFFIX
    if not pretrained:
        return build(_sized(clip_core.get_config(name), sizes))
    model = _read(name, pretrained, cache_dir)
    return _changed(model, model.config, sizes)


def _read(name: str, pretrained: str, cache_dir: str | None) -> Clip:
    """What clip-hub makes of `pretrained`, and bundles of the same architecture with other preprocessing too.

    clip-hub refuses those, because its caller asks for the preprocessing that goes with the name. A run may go on from
    one that was trained with another mean, filter or size, or with SigLIP's bias, and keeps them.
    """
    try:
        return clip_hub.create_model(name, pretrained, cache_dir=cache_dir)
    except CheckpointMismatch:
        if not Path(pretrained).is_dir():
            raise
        held, asked = read_config(pretrained), clip_core.get_config(name)
        asked = asked.resized(held.image.image_size, held.text.context_length)
        if isinstance(held.image, NaFlexConfig):
            asked = to_naflex_config(asked)  # a transformer that was trained as one
        kept = {name: getattr(held, name) for name in ("preprocess", "logit_scale", "logit_bias", "layout")}
        asked = _with_patch_dropout(dataclasses.replace(asked, **kept), getattr(held.image, "patch_dropout", None))
        if asked != held:
            raise
    return build(held, weights_of(pretrained))


def _brings_weights(name: str) -> bool:
    return name.startswith((HUB_PREFIX, _LOCAL_PREFIX))


def _sized(config: ClipConfig, given: ModelConfig | None) -> ClipConfig:
    """`config` as the `force_*` fields want it."""
    if given is None:
        return config
    size = given.force_image_size
    if isinstance(size, tuple) and size[0] == size[1]:
        size = size[0]
    config = config.resized(size, given.force_context_length)
    if given.force_custom_text:
        config = dataclasses.replace(config, layout="nested")
    if given.force_patch_dropout is None:
        return config
    if not hasattr(config.image, "patch_dropout"):
        raise ConfigError(
            f"force_patch_dropout is {given.force_patch_dropout}; allowed: None, this image tower has none."
        )
    return _with_patch_dropout(config, given.force_patch_dropout)


def _with_patch_dropout(config: ClipConfig, share: float | None) -> ClipConfig:
    if share is None or not hasattr(config.image, "patch_dropout"):
        return config
    tower: Any = config.image
    image = dataclasses.replace(tower, patch_dropout=share)
    return dataclasses.replace(config, image=image)


def _changed(model: Clip, config: ClipConfig, given: ModelConfig | None) -> Clip:
    """`model` as `config` with the `force_*` fields says, its weights interpolated; itself where it is so already."""
    wanted = _sized(config, given)
    if wanted == model.config:
        return model
    weights, prefix = model.state_dict(), model.text_prefix

    def tensors(asked: ClipConfig) -> dict[str, Tensor]:
        if (asked.layout == "nested") == bool(prefix):
            return weights
        return {k if k.startswith(("visual.", "logit_")) else f"text.{k}": value for k, value in weights.items()}

    return build(wanted, Checkpoint(path=Path("weights"), layout="model", config=model.config, tensors=tensors))


def _begin_towers(model: Clip, given: ModelConfig) -> None:
    """Published weights for towers of other libraries, where there are none for the whole model."""
    image, text = model.config.image, model.config.text
    if given.pretrained_image and given.pretrained_image_path is None:
        if not isinstance(image, TimmConfig) or isinstance(image, NaFlexConfig):
            raise ConfigError(
                f"pretrained_image is True; allowed: False, since the image tower of {given.model} is not timm's. "
                "Weights of timm that fit it all the same can be given with --pretrained-image-path."
            )
        load_image_tower(model, _fetch_timm(image.name, given.cache_dir))
    if isinstance(text, HfTextConfig) and given.pretrained_text and given.pretrained_text_path is None:
        source = _encoder_of(text)
        if source is None:
            _log.warning("the text tower begins with random weights: nobody says where its encoder is published")
        else:
            load_text_tower(model, fetch_model(source, cache_dir=given.cache_dir))


def _fetch_timm(name: str, cache_dir: str | None) -> Path:
    """The file of timm's default weights for the model `name`."""
    from timm.models import get_pretrained_cfg

    stated = get_pretrained_cfg(name)
    repo = None if stated is None else stated.hf_hub_id
    if not repo:
        raise ConfigError(f"timm publishes no weights for {name!r}; leave --pretrained-image out.")
    files = ("model.safetensors", "pytorch_model.bin")
    return clip_hub.fetch(repo if "/" in repo else f"timm/{repo}", files, cache_dir=cache_dir)


def _encoder_of(text: HfTextConfig) -> str | None:
    """The repository with the encoder that this text tower is."""
    wanted = (text.model_type, text.settings, text.width)
    found = [source for held, source in SOURCES.items() if (held.model_type, held.settings, held.width) == wanted]
    return found[0] if found else None


def _vocabulary(config: ClipConfig, given: ModelConfig) -> Path | None:
    """A folder with the tokenizer's vocabulary: that of the weights, or one from the Hub; None where none is needed."""
    if isinstance(config.tokenizer, ClipTokenizerConfig):
        return None
    for folder in (given.model.removeprefix(_LOCAL_PREFIX), given.pretrained, given.pretrained_text_path):
        there = bool(folder) and Path(str(folder)).is_dir()
        if there and not isinstance(find_tokenizer(config.tokenizer, folder), MissingTokenizer):
            return Path(str(folder))
    return fetch_vocabulary(config.tokenizer, cache_dir=given.cache_dir)


def _as_naflex(model: Clip) -> Clip:
    """The same model with a NaFlex tower that has the weights of its vision transformer."""
    config = to_naflex_config(model.config)
    if config == model.config:
        return model
    tensors = to_naflex_tensors(model.config, model.state_dict())
    _log.info("the image tower is made a NaFlex tower with the same weights")
    return build(config, Checkpoint(path=Path("weights"), layout="model", config=config, tensors=lambda asked: tensors))


def _begin_siglip(model: Clip, *, fresh: bool) -> None:
    """Scale and bias as open_clip's --siglip has them: SigLIP's for a fresh model; weights without a bias get one of 0.

    Weights keep the scale, and the bias where there is one, that they were trained with.
    """
    if fresh:
        model.config = dataclasses.replace(model.config, logit_scale=_SIGLIP_SCALE, logit_bias=_SIGLIP_BIAS)
        model.logit_scale = nn.Parameter(torch.tensor(_SIGLIP_SCALE))
        model.logit_bias = nn.Parameter(torch.tensor(_SIGLIP_BIAS))
    elif model.logit_bias is None:
        _log.warning(
            "the weights have no bias for the sigmoid loss: it begins at 0, as in open_clip, where SigLIP begins at %g",
            _SIGLIP_BIAS,
        )
        model.config = dataclasses.replace(model.config, logit_bias=0.0)
        model.logit_bias = nn.Parameter(torch.zeros(()))


def _preprocess(config: ClipConfig, given: ModelConfig) -> Any:
    stated = {
        "mean": given.image_mean,
        "std": given.image_std,
        # "random" is of training's transform alone.
        "interpolation": None if given.image_interpolation == "random" else given.image_interpolation,
        "resize_mode": given.image_resize_mode,
    }
    return dataclasses.replace(config.preprocess, **{k: v for k, v in stated.items() if v is not None})  # type: ignore[arg-type]


def augmentation(config: TrainConfig) -> AugmentConfig:
    """The random part of training's transform, with what `image_interpolation` says of it.

    Raises `ConfigError` for "random" without timm's transform, where open_clip takes bicubic without a word.
    """
    stated = config.data.aug_cfg
    if config.model.image_interpolation != "random":
        return stated
    if not stated.use_timm:
        raise ConfigError(
            "image_interpolation is 'random'; allowed only with timm's transform: --aug-cfg use_timm=True."
        )
    return dataclasses.replace(stated, interpolation="random")


def _lock(model: Clip, given: ModelConfig) -> None:
    if given.lock_image:
        model.lock_image_tower(given.lock_image_unlocked_groups, given.lock_image_freeze_bn_stats)
    if given.lock_text:
        model.lock_text_tower(given.lock_text_unlocked_layers, given.lock_text_freeze_layer_norm)
    if given.lock_image or given.lock_text:
        counts = [sum(p.numel() for p in model.parameters() if p.requires_grad is wanted) for wanted in (True, False)]
        _log.info("%s numbers are trained, %s are locked", *(f"{count:,}" for count in counts))
