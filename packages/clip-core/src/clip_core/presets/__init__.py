"""Names of architectures and the configurations behind them: `list_models()` and `get_config(name)`.

Each file here is one family, a table of sizes with a function that turns a row into a `ClipConfig`. A name that ends
in "-quickgelu" is an alias: the same row with OpenAI's activation in both towers. That activation is a fact about a
set of weights, so any name may carry the suffix whether or not weights were published under it.
"""

from __future__ import annotations

from clip_core.config import ClipConfig
from clip_core.errors import UnknownModel
from clip_core.presets import (
    clipa,
    coca,
    convnext,
    eva,
    hf,
    mobileclip,
    modern,
    naflex,
    pe,
    resnet,
    siglip,
    timm_vit,
    vit,
    vitamin,
    worldwide,
)

__all__ = ["QUICK_GELU_SUFFIX", "get_config", "list_models", "split_name"]

QUICK_GELU_SUFFIX = "-quickgelu"

_PRESETS: dict[str, ClipConfig] = {
    **vit.PRESETS,
    **clipa.PRESETS,
    **worldwide.PRESETS,
    **resnet.PRESETS,
    **convnext.PRESETS,
    **eva.PRESETS,
    **vitamin.PRESETS,
    **mobileclip.PRESETS,
    **pe.PRESETS,
    **siglip.PRESETS,
    **naflex.PRESETS,
    **timm_vit.PRESETS,
    **hf.PRESETS,
    **modern.PRESETS,
    **coca.PRESETS,
}

# Names under which weights with OpenAI's activation were published with an architecture name of their own.
_PUBLISHED_WITH_QUICK_GELU = (
    *vit.PUBLISHED_WITH_QUICK_GELU,
    *worldwide.PUBLISHED_WITH_QUICK_GELU,
    *resnet.PUBLISHED_WITH_QUICK_GELU,
)


def list_models() -> list[str]:
    """Every architecture name that `create_model` takes, sorted."""
    names = [*_PRESETS, *(name + QUICK_GELU_SUFFIX for name in _PUBLISHED_WITH_QUICK_GELU)]
    return sorted(names, key=str.lower)


def get_config(name: str) -> ClipConfig:
    """The configuration of architecture `name`; raises `UnknownModel` with the nearest names."""
    if not isinstance(name, str):
        raise UnknownModel(f"The name of a model is a string, not {name!r}; clip_core.list_models() lists them all.")
    base, quick_gelu = split_name(name)
    if base not in _PRESETS:
        raise UnknownModel.among("model", name, list_models(), "clip_core.list_models() lists them all.")
    config = _PRESETS[base]
    return config.with_activation("quick_gelu") if quick_gelu else config


def split_name(name: str) -> tuple[str, bool]:
    """The name without its "-quickgelu" suffix, and whether it had one; OpenAI's spelling ViT-B/32 is ViT-B-32."""
    plain = name.replace("/", "-")
    base = plain.removesuffix(QUICK_GELU_SUFFIX)
    return base, base != plain
