"""OpenCLIP's preprocessing by its own names: its two records and the functions that make a transform of them.

The transforms are clip-core's. What this room leaves out: how an image is resized and changed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from clip_core.config import PreprocessConfig
from clip_core.errors import ConfigError
from clip_core.preprocess import AugmentConfig, Transform, build_transform
from clip_core.presets.parts import OPENAI_MEAN, OPENAI_STD

__all__ = [
    "AugmentationCfg",
    "PreprocessCfg",
    "image_transform",
    "image_transform_v2",
    "merge_preprocess_dict",
    "merge_preprocess_kwargs",
]


@dataclasses.dataclass
class PreprocessCfg:
    """What `model.visual.preprocess_cfg` holds: size in pixels, one number or (height, width), and so on."""

    size: int | tuple[int, int] = 224
    mode: str = "RGB"
    mean: tuple[float, ...] = OPENAI_MEAN
    std: tuple[float, ...] = OPENAI_STD
    interpolation: str = "bicubic"
    resize_mode: str = "shortest"
    fill_color: int = 0

    def __post_init__(self) -> None:
        if self.mode != "RGB":
            raise ConfigError(f"mode is {self.mode!r}; allowed: 'RGB'.")

    @property
    def num_channels(self) -> int:
        """3."""
        return 3

    @property
    def input_size(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        height, width = self.size if isinstance(self.size, Sequence) else (self.size, self.size)
        return (self.num_channels, height, width)


@dataclasses.dataclass
class AugmentationCfg:
    """The random part of training's transform; None is "not used". clip-core's `AugmentConfig` says what they do."""

    scale: tuple[float, float] = (0.9, 1.0)
    ratio: tuple[float, float] | None = None
    color_jitter: float | tuple[float, ...] | None = None
    re_prob: float | None = None
    re_count: int | None = None
    use_timm: bool = False
    color_jitter_prob: float | None = None
    gray_scale_prob: float | None = None


_KEYS = {field.name for field in dataclasses.fields(PreprocessCfg)}


def merge_preprocess_dict(base: PreprocessCfg | Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `PreprocessCfg` in `base`, with those of `overlay` in their place where they are not None."""
    held = dataclasses.asdict(base) if isinstance(base, PreprocessCfg) else base
    changed = {key: value for key, value in (overlay or {}).items() if value is not None}
    return {key: value for key, value in {**held, **changed}.items() if key in _KEYS}


def merge_preprocess_kwargs(base: PreprocessCfg | Mapping[str, Any], **kwargs: Any) -> dict[str, Any]:
    """As `merge_preprocess_dict`."""
    return merge_preprocess_dict(base, kwargs)


def image_transform(
    image_size: int | tuple[int, int],
    is_train: bool,
    mean: Sequence[float] | float | None = None,
    std: Sequence[float] | float | None = None,
    resize_mode: str | None = None,
    interpolation: str | None = None,
    fill_color: int = 0,
    aug_cfg: Mapping[str, Any] | AugmentationCfg | None = None,
) -> Transform:
    """The transform of a PIL image to a float32 tensor (3, height, width), for evaluation or for training.

    Args:
        image_size: pixels of the sides, one number or (height, width).
        is_train: augment as `aug_cfg` says instead of resizing and cropping.
        mean: of each channel; default OpenAI's.
        std: of each channel; default OpenAI's.
        resize_mode: "shortest" (default), "longest" or "squash".
        interpolation: "bicubic" (default), "bilinear", or "random" for training with timm.
        fill_color: what "longest" fills with.
        aug_cfg: see `AugmentationCfg`.

    Raises:
        ConfigError: another value, or an augmentation that the chosen path does not have; OpenCLIP leaves it out.
    """
    size: Any = tuple(image_size) if isinstance(image_size, Sequence) else image_size
    config = PreprocessConfig(
        size=size,
        mean=_channels(mean, OPENAI_MEAN),
        std=_channels(std, OPENAI_STD),
        interpolation="bicubic" if interpolation in (None, "random") else interpolation,  # type: ignore[arg-type]
        resize_mode=resize_mode or "shortest",  # type: ignore[arg-type]
        fill_color=fill_color,
    )
    if not is_train:
        return build_transform(config)
    given = dataclasses.asdict(aug_cfg) if isinstance(aug_cfg, AugmentationCfg) else dict(aug_cfg or {})
    unknown = sorted(set(given) - {field.name for field in dataclasses.fields(AugmentationCfg)})
    if unknown:
        names = ", ".join(field.name for field in dataclasses.fields(AugmentationCfg))
        raise ConfigError(f"aug_cfg has {', '.join(unknown)}; allowed: {names}.")
    chosen = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
    chosen = {key: value for key, value in chosen.items() if value is not None}
    # Without timm OpenCLIP resizes bicubically whatever the model's own interpolation is.
    way = ("random" if interpolation == "random" else "model") if chosen.get("use_timm") else "bicubic"
    return build_transform(config, train=True, augment=AugmentConfig(interpolation=way, **chosen))  # type: ignore[arg-type]


def image_transform_v2(
    cfg: PreprocessCfg, is_train: bool, aug_cfg: Mapping[str, Any] | AugmentationCfg | None = None
) -> Transform:
    """As `image_transform`, of a record."""
    return image_transform(
        cfg.size,
        is_train,
        mean=cfg.mean,
        std=cfg.std,
        resize_mode=cfg.resize_mode,
        interpolation=cfg.interpolation,
        fill_color=cfg.fill_color,
        aug_cfg=aug_cfg,
    )


def _channels(value: Sequence[float] | float | None, default: tuple[float, float, float]) -> Any:
    if not value:
        return default
    return tuple(value) if isinstance(value, Sequence) else (value,) * 3
