"""transformers' `preprocessor_config.json` <-> `PreprocessConfig`.

Their evaluation is resize, centre crop, scale, normalise, each with a switch; ours are the combinations that CLIP
models use. Pixels are equal, but for one case: where an odd number of rows or columns is cut off, transformers rounds
the larger half down and torchvision, whose transform ours is, to the even number, so that the crop may lie one pixel
off.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from clip_core.config import PreprocessConfig, Size, size_pair
from clip_core.errors import ConfigError
from clip_core.presets.parts import INCEPTION_MEAN, INCEPTION_STD, OPENAI_MEAN, OPENAI_STD

__all__ = ["from_preprocessor", "to_preprocessor", "writing_call"]

_BILINEAR, _BICUBIC = 2, 3  # Pillow's numbers

# What a file of each kind of image processor leaves out.
_CLIP: dict[str, Any] = {
    "do_resize": True,
    "size": {"shortest_edge": 224},
    "resample": _BICUBIC,
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": OPENAI_MEAN,
    "image_std": OPENAI_STD,
}
_SQUARE = {**_CLIP, "size": {"height": 224, "width": 224}, "do_center_crop": False}
_INCEPTION = {"image_mean": INCEPTION_MEAN, "image_std": INCEPTION_STD}
_DEFAULTS: dict[str, dict[str, Any]] = {
    "CLIP": _CLIP,
    "ChineseCLIP": _CLIP,
    "Siglip": {**_SQUARE, **_INCEPTION},
    "Siglip2": {**_SQUARE, **_INCEPTION, "resample": _BILINEAR},
    "ViT": {**_SQUARE, **_INCEPTION, "resample": _BILINEAR},
}
_ENDINGS = ("ImageProcessorFast", "ImageProcessorPil", "ImageProcessor", "FeatureExtractor")


def from_preprocessor(settings: Mapping[str, Any], image_size: Size, where: object) -> PreprocessConfig:
    """What `settings`, the content of the file `where`, do to an image for a tower that takes `image_size`.

    Raises:
        ConfigError: they do what no transform of ours does, or do not give images of `image_size`.
    """
    kind = str(settings.get("image_processor_type") or settings.get("feature_extractor_type"))
    family = next((kind.removesuffix(ending) for ending in _ENDINGS if kind.endswith(ending)), kind)
    if family not in _DEFAULTS:
        raise ConfigError(
            f"{where} is of a {kind}; allowed: {', '.join(f'{name}ImageProcessor' for name in _DEFAULTS)}."
        )
    held = {**_DEFAULTS[family], **{key: value for key, value in settings.items() if value is not None}}
    for switch in ("do_resize", "do_rescale"):
        if not held[switch]:
            raise ConfigError(f"{where} has {switch} = false; clip-core's transform always does this.")
    if not math.isclose(held["rescale_factor"], 1 / 255, rel_tol=1e-6):
        raise ConfigError(f"{where} has rescale_factor = {held['rescale_factor']}; allowed: 1/255.")
    if held["resample"] not in (_BILINEAR, _BICUBIC):
        raise ConfigError(f"{where} has resample = {held['resample']}; allowed: 2 (bilinear), 3 (bicubic).")
    return PreprocessConfig(
        size=image_size,
        mean=tuple(held["image_mean"]) if held["do_normalize"] else (0.0, 0.0, 0.0),
        std=tuple(held["image_std"]) if held["do_normalize"] else (1.0, 1.0, 1.0),
        interpolation="bicubic" if held["resample"] == _BICUBIC else "bilinear",
        resize_mode=_resize_mode(held, family, image_size, where),
    )


def _resize_mode(
    held: Mapping[str, Any], family: str, image_size: Size, where: object
) -> Literal["shortest", "squash"]:
    size, cut = held["size"], held["crop_size"]
    if isinstance(size, int):
        # As files were written before sizes had names.
        size = (
            {"shortest_edge": size} if "shortest_edge" in _DEFAULTS[family]["size"] else {"height": size, "width": size}
        )
    cut = {"height": cut, "width": cut} if isinstance(cut, int) else cut
    if family == "Siglip2":
        return "squash"  # where its patches are not wanted, a square that has as many
    height, width = size_pair(image_size)
    cropped = (cut["height"], cut["width"]) == (height, width) if held["do_center_crop"] else None
    if set(size) >= {"height", "width"} and (size["height"], size["width"]) == (height, width) and cropped is not False:
        return "squash"
    if set(size) == {"shortest_edge"} and size["shortest_edge"] == height == width and cropped:
        return "shortest"
    raise ConfigError(
        f"{where} scales images to {size} and {f'cuts out {cut}' if held['do_center_crop'] else 'cuts nothing out'}; "
        f"allowed: the shortest edge to {height} with a crop of {height} x {width}, the tower's size, or both sides "
        "to it."
    )


def to_preprocessor(config: PreprocessConfig, family: Literal["CLIP", "Siglip"]) -> dict[str, Any]:
    """The `preprocessor_config.json` of a processor of `family` that does what `config` states.

    Raises:
        ConfigError: none can ("longest").
    """
    height, width = size_pair(config.size)
    if config.resize_mode == "longest" or (config.resize_mode == "shortest" and height != width):
        raise ConfigError(
            f"preprocess.resize_mode is {config.resize_mode!r} to {height} x {width}; transformers' processors can "
            "only be 'squash', or 'shortest' to a square."
        )
    shortest = config.resize_mode == "shortest"
    if shortest and family == "Siglip":
        raise ConfigError("preprocess.resize_mode is 'shortest'; SiglipImageProcessor can only be 'squash'.")
    found: dict[str, Any] = {
        "image_processor_type": f"{family}ImageProcessor",
        "processor_class": f"{family}Processor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": height} if shortest else {"height": height, "width": width},
        "resample": _BICUBIC if config.interpolation == "bicubic" else _BILINEAR,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(config.mean),
        "image_std": list(config.std),
    }
    if family == "CLIP":
        found |= {"do_center_crop": shortest, "crop_size": {"height": height, "width": width}}
    return found


def writing_call(model: str, image_size: Size, folder: object) -> str:
    """The call of transformers that writes into `folder` what a `model` expects unless told otherwise."""
    family = next((name for name in ("Siglip2", "Siglip", "ChineseCLIP") if model == f"{name}Model"), "CLIP")
    height, width = size_pair(image_size)
    both = f"{{'height': {height}, 'width': {width}}}"
    if family == "Siglip2":
        arguments = ""  # of a number of patches, not of a size
    elif family == "Siglip":
        arguments = f"size={both}"
    elif height == width and family == "CLIP":
        arguments = f"size={{'shortest_edge': {height}}}, crop_size={both}"
    else:
        arguments = f"size={both}, do_center_crop=False"
    return f"transformers.{family}ImageProcessor({arguments}).save_pretrained({str(folder)!r})"
