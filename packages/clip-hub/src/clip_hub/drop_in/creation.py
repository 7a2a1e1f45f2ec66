"""OpenCLIP's `create_model` and its relatives: every argument is honoured, or refused with what to do instead.

A model is either whole or not returned: where OpenCLIP warns and goes on with random weights, this raises. What this
room leaves out: what the names mean (`sources`).
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from clip_core.building import Precision, build
from clip_core.config import ClipConfig, HfTextConfig
from clip_core.convert.checkpoint import Checkpoint
from clip_core.convert.image_tower import load_image_tower
from clip_core.convert.text_encoder import load_text_tower
from clip_core.errors import ConfigError
from clip_core.preprocess import Transform
from clip_core.presets.hf import SOURCES
from clip_hub.drop_in.loading import fill_tower, with_logit_bias
from clip_hub.drop_in.models import present
from clip_hub.drop_in.sources import find_source
from clip_hub.drop_in.transforms import (
    AugmentationCfg,
    PreprocessCfg,
    image_transform_v2,
    merge_preprocess_dict,
    merge_preprocess_kwargs,
)
from clip_hub.repository import fetch_model

__all__ = ["create_model", "create_model_and_transforms", "create_model_from_pretrained"]

_log = logging.getLogger(__name__)

_PRECISIONS: dict[str, Precision] = {
    "fp32": "fp32",
    "amp": "fp32",  # what is mixed then is the caller's autocast
    "amp_bf16": "fp32",
    "amp_bfloat16": "fp32",
    "fp16": "fp16",
    "pure_fp16": "fp16",
    "bf16": "bf16",
    "pure_bf16": "bf16",
}

Size = int | tuple[int, int]
PathLike = str | os.PathLike[str]


def create_model(
    model_name: str,
    pretrained: PathLike | None = None,
    load_weights: bool = True,
    precision: str = "fp32",
    device: str | torch.device = "cpu",
    jit: bool = False,
    force_quick_gelu: bool = False,
    force_custom_text: bool = False,
    force_patch_dropout: float | None = None,
    force_image_size: Size | None = None,
    force_preprocess_cfg: Mapping[str, Any] | None = None,
    force_context_length: int | None = None,
    pretrained_image: bool = False,
    pretrained_text: bool = True,
    pretrained_image_path: PathLike | None = None,
    pretrained_text_path: PathLike | None = None,
    cache_dir: PathLike | None = None,
    output_dict: bool | None = None,
    require_pretrained: bool = False,
    weights_only: bool = True,
    **model_kwargs: Any,
) -> Any:
    """A model in training mode, as OpenCLIP returns it.

    Args:
        model_name: an architecture, "hf-hub:org/name" or "local-dir:FOLDER".
        pretrained: for an architecture: a tag, or the path of weights; None draws new ones.
        load_weights: False leaves them out, and fetches none.
        precision: "fp32", "fp16", "bf16", "pure_fp16", "pure_bf16", "amp", "amp_bf16". All weights are of that dtype
            but the scale and bias of the logits; OpenCLIP's "fp16" and "bf16" keep norms in float32, too.
        device: where the model goes.
        jit: False.
        force_quick_gelu: OpenAI's activation in both towers; refused for a tag that was trained with another.
        force_custom_text: the text tower as a submodule `text`.
        force_patch_dropout: the share of patches left out in training.
        force_image_size: pixels of the sides; positions are interpolated.
        force_preprocess_cfg: fields of `PreprocessCfg` in place of the model's own.
        force_context_length: most tokens of a text; positions are interpolated.
        pretrained_image: False; see `pretrained_image_path`.
        pretrained_text: where the text tower is one of transformers and there are no weights for the whole: fetch its
            own encoder's.
        pretrained_image_path: weights of the image tower, this one's or timm's.
        pretrained_text_path: weights of the text tower: this one's, or a folder of transformers.
        cache_dir: where downloads are kept; default huggingface_hub's cache.
        output_dict: make `forward` give a dict.
        require_pretrained: raise where there are no weights for the whole model.
        weights_only: True; no file runs code.
        model_kwargs: `init_logit_scale` and `init_logit_bias`.

    Raises:
        UnknownModel: no such architecture or tag; the nearest are listed.
        ConfigError: another value of an argument; a path that is not there.
        CheckpointMismatch: weights that do not fit, cannot be read, or are of another model.
        DownloadError: weights could not be fetched.
    """
    _require_plain(jit, weights_only, precision, model_kwargs)
    source = find_source(
        model_name,
        pretrained,
        load_weights=load_weights,
        quick_gelu=force_quick_gelu,
        image_size=force_image_size,
        context_length=force_context_length,
        cache_dir=cache_dir,
    )
    if require_pretrained and source.weights is None:
        raise ConfigError(
            f"Weights are required, and {model_name!r} with pretrained={pretrained!r} has none; name a tag of "
            "list_pretrained(), the path of weights, or a repository as 'hf-hub:org/name'."
        )
    if pretrained_image and source.weights is None:
        raise ConfigError(
            "pretrained_image is True; allowed: False. Give timm's weights as pretrained_image_path, a file or a "
            "folder that huggingface_hub.snapshot_download fetched."
        )
    config = _configured(source.config, force_custom_text, force_patch_dropout, model_kwargs)
    preprocess_cfg = _preprocess(config, force_preprocess_cfg)
    preprocess = {key: value for key, value in preprocess_cfg.items() if key != "mode"}
    if preprocess["interpolation"] == "random":  # of training's transform alone
        preprocess["interpolation"] = config.preprocess.interpolation
    config = dataclasses.replace(config, preprocess=dataclasses.replace(config.preprocess, **preprocess))
    checkpoint: Checkpoint | None = None if source.weights is None else with_logit_bias(source.weights())
    model = build(config, checkpoint, precision=_PRECISIONS[precision], device=device)
    started = False
    if isinstance(config.text, HfTextConfig) and pretrained_text and not pretrained_text_path and checkpoint is None:
        load_text_tower(model, fetch_model(_encoder(config.text), cache_dir=cache_dir))
        started = True
    for tower, path in (("visual", pretrained_image_path), ("text", pretrained_text_path)):
        if path:
            started = True
            if not fill_tower(model, tower, Path(path)):
                (load_image_tower if tower == "visual" else load_text_tower)(model, path)
    if checkpoint is None:
        what = "has new random weights but for the towers that were given" if started else "has new random weights"
        _log.warning("%s %s: no pretrained weights were asked for", model_name, what)
    return present(model, {**preprocess_cfg, "size": model.visual.image_size}, output_dict=output_dict)


def create_model_and_transforms(
    model_name: str,
    pretrained: PathLike | None = None,
    load_weights: bool = True,
    precision: str = "fp32",
    device: str | torch.device = "cpu",
    jit: bool = False,
    force_quick_gelu: bool = False,
    force_custom_text: bool = False,
    force_patch_dropout: float | None = None,
    force_image_size: Size | None = None,
    force_context_length: int | None = None,
    image_mean: tuple[float, ...] | None = None,
    image_std: tuple[float, ...] | None = None,
    image_interpolation: str | None = None,
    image_resize_mode: str | None = None,
    aug_cfg: Mapping[str, Any] | AugmentationCfg | None = None,
    pretrained_image: bool = False,
    pretrained_text: bool = True,
    pretrained_image_path: PathLike | None = None,
    pretrained_text_path: PathLike | None = None,
    cache_dir: PathLike | None = None,
    output_dict: bool | None = None,
    weights_only: bool = True,
    **model_kwargs: Any,
) -> tuple[Any, Transform, Transform]:
    """As `create_model`, with the transforms for training and for evaluation: (model, train, eval).

    `image_mean` to `image_resize_mode` take the place of the model's own, `aug_cfg` is the random part of the former.
    """
    model = create_model(
        model_name,
        pretrained,
        load_weights,
        precision,
        device,
        jit,
        force_quick_gelu,
        force_custom_text,
        force_patch_dropout,
        force_image_size,
        _overrides(image_mean, image_std, image_interpolation, image_resize_mode),
        force_context_length,
        pretrained_image,
        pretrained_text,
        pretrained_image_path,
        pretrained_text_path,
        cache_dir,
        output_dict,
        weights_only=weights_only,
        **model_kwargs,
    )
    config = PreprocessCfg(**model.visual.preprocess_cfg)
    return model, image_transform_v2(config, True, aug_cfg), image_transform_v2(config, False)


def create_model_from_pretrained(
    model_name: str,
    pretrained: PathLike | None = None,
    precision: str = "fp32",
    device: str | torch.device = "cpu",
    jit: bool = False,
    force_quick_gelu: bool = False,
    force_custom_text: bool = False,
    force_image_size: Size | None = None,
    force_context_length: int | None = None,
    image_mean: tuple[float, ...] | None = None,
    image_std: tuple[float, ...] | None = None,
    image_interpolation: str | None = None,
    image_resize_mode: str | None = None,
    return_transform: bool = True,
    cache_dir: PathLike | None = None,
    weights_only: bool = True,
    **model_kwargs: Any,
) -> Any:
    """As `create_model` with weights required: (model, transform for evaluation), or the model alone."""
    model = create_model(
        model_name,
        pretrained,
        precision=precision,
        device=device,
        jit=jit,
        force_quick_gelu=force_quick_gelu,
        force_custom_text=force_custom_text,
        force_image_size=force_image_size,
        force_preprocess_cfg=_overrides(image_mean, image_std, image_interpolation, image_resize_mode),
        force_context_length=force_context_length,
        cache_dir=cache_dir,
        require_pretrained=True,
        weights_only=weights_only,
        **model_kwargs,
    )
    if not return_transform:
        return model
    return model, image_transform_v2(PreprocessCfg(**model.visual.preprocess_cfg), False)


def _overrides(mean: Any, std: Any, interpolation: str | None, resize_mode: str | None) -> dict[str, Any]:
    return merge_preprocess_kwargs({}, mean=mean, std=std, interpolation=interpolation, resize_mode=resize_mode)


def _require_plain(jit: bool, weights_only: bool, precision: str, model_kwargs: Mapping[str, Any]) -> None:
    if jit:
        raise ConfigError("jit is True; allowed: False. torch.compile(model) is faster and trains, too.")
    if not weights_only:
        raise ConfigError(
            "weights_only is False; allowed: True, so that no file runs code. Where you trust one, load it with torch "
            "and save its state dict alone."
        )
    if precision not in _PRECISIONS:
        raise ConfigError(f"precision is {precision!r}; allowed: {', '.join(_PRECISIONS)}.")
    unknown = sorted(set(model_kwargs) - {"init_logit_scale", "init_logit_bias"})
    if unknown:
        raise ConfigError(
            f"create_model got {', '.join(unknown)}; allowed: its arguments, init_logit_scale and init_logit_bias. "
            "Another architecture is added with add_model_config, from JSON."
        )


def _configured(
    config: ClipConfig, custom_text: bool, patch_dropout: float | None, model_kwargs: Mapping[str, Any]
) -> ClipConfig:
    changes: dict[str, Any] = {"layout": "nested"} if custom_text else {}
    if patch_dropout is not None:
        if not hasattr(config.image, "patch_dropout"):
            raise ConfigError(f"force_patch_dropout is {patch_dropout}; allowed: None, for this image tower has none.")
        image: Any = config.image
        changes["image"] = dataclasses.replace(image, patch_dropout=patch_dropout)
    for name in ("logit_scale", "logit_bias"):
        if model_kwargs.get(f"init_{name}") is not None:
            changes[name] = float(model_kwargs[f"init_{name}"])
    return dataclasses.replace(config, **changes)


def _preprocess(config: ClipConfig, forced: Mapping[str, Any] | None) -> dict[str, Any]:
    held = merge_preprocess_dict(
        {**{field.name: getattr(config.preprocess, field.name) for field in dataclasses.fields(config.preprocess)}},
        {"mode": "RGB", **(forced or {}), "size": None},
    )
    for name in ("mean", "std"):
        value = held[name]
        held[name] = tuple(value) if isinstance(value, list | tuple) else (value,) * 3
    return held


def _encoder(text: HfTextConfig) -> str:
    """The repository with the encoder that this text tower is."""
    for held, source in SOURCES.items():
        if (held.model_type, held.settings, held.width) == (text.model_type, text.settings, text.width):
            return source
    raise ConfigError(
        "pretrained_text is True, and it is not known where this text tower's encoder is; give its folder as "
        "pretrained_text_path, or pass pretrained_text=False for new random weights."
    )
