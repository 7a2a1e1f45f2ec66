"""From one layout of checkpoints to another: bundles, OpenCLIP's folders, transformers' folders, timm's image towers.

What this room leaves out: the layouts themselves, which are in clip-core's `convert`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, cast, get_args

from clip_core.building import DTYPES, Precision, build
from clip_core.bundle import Bundle
from clip_core.errors import ConfigError
from clip_core.storage import export
from clip_hub.soup import average
from clip_hub.sources import Source, open_source

__all__ = ["Target", "convert"]

Target = Literal["bundle", "open_clip", "transformers", "timm"]


def convert(
    name: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    to: Target,
    *,
    dtype: Precision | None = None,
    ema: bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> Path:
    """Write the checkpoint that `name` means as a folder in another layout.

    Args:
        name: what `sources.open_source` takes.
        folder: where.
        to: "bundle"; "open_clip" and "transformers" for what these libraries load; "timm" for the image tower alone.
        dtype: of the result; default that of the checkpoint, or float32 where a layout other than a bundle is made of
            one with several.
        ema: for a file with weights and their moving average: True takes the average, False the others.
        cache_dir, token: as `clip_hub.load`.
        overwrite: replace a folder of the same layout that is there.
        progress: show a bar on stderr.

    Raises:
        ConfigError: an unknown layout, or one that cannot express this model, the message says which part of it; or the
            folder exists.
        CheckpointMismatch: the weights cannot be read, do not fit, or (for a bundle) have values that are not finite.
    """
    if to not in get_args(Target):
        raise ConfigError(f"The layout is {to!r}; allowed: {', '.join(get_args(Target))}.")
    if dtype is not None and dtype not in DTYPES:
        raise ConfigError(f"dtype is {dtype!r}; allowed: {', '.join(DTYPES)}.")
    source = open_source(name, ema=ema, cache_dir=cache_dir, token=token)
    if to == "bundle":
        return average([source], [1.0], folder, None, dtype=dtype, overwrite=overwrite, progress=progress)
    model = build(source.config, source.checkpoint, precision=dtype or _dtype_of(source))
    return export(Bundle.of(model, source.vocabulary), folder, to, overwrite=overwrite)


def _dtype_of(source: Source) -> Precision:
    """The dtype of all its tensors of floats but the scale and bias of the logits, where they have one in common."""
    found = {
        value.dtype
        for key, value in source.tensors().items()
        if value.is_floating_point() and key not in ("logit_scale", "logit_bias")
    }
    names = [name for name, dtype in DTYPES.items() if {dtype} == found]
    return cast(Precision, names[0]) if names else "fp32"
