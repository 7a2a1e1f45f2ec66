"""Other spellings that mean the same: of flags, and of open_clip's values. Command line and files take both."""

from __future__ import annotations

from typing import Any

__all__ = ["ALIASES", "REFUSED_VALUES", "SYNONYMS"]

ALIASES: dict[str, tuple[str, ...]] = {
    # The model cards of LAION's ConvNeXt models write it so; open_clip itself does not take it.
    "grad_clip_norm": ("clip_grad_norm",),
    "image_layer_decay": ("visual_layer_decay",),
}
"""Field -> its other names."""

SYNONYMS: dict[str, dict[str, Any]] = {
    "batch_size": {"auto": 0},
    "precision": {"amp_bfloat16": "amp_bf16"},
    "loss_dist_impl": {"bidir": "ring", "shift": "ring", "reduce": "gather"},
}
"""Field -> values of open_clip -> the value that means the same here."""

REFUSED_VALUES: dict[tuple[str, str], str] = {
    ("torchcompile_mode", "reduce-overhead"): "it uses CUDA graphs, which need equal shapes in every step, and packed "
    "texts have none; use default or max-autotune-no-cudagraphs",
    ("torchcompile_mode", "max-autotune"): "it uses CUDA graphs, which need equal shapes in every step, and packed "
    "texts have none; use max-autotune-no-cudagraphs",
}
"""Values of open_clip that no field takes -> what to do. A value that its field takes is not looked up here."""
