"""Low-rank additions to the layers of locked towers (LoRA, Hu et al. 2022), through the library peft.

Training holds them beside the weights, which stay as they are; a bundle has the sum, and the additions lie beside it as
peft reads them. What this room leaves out: which flags ask for it (`config.model`).
"""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from clip_core import Clip
from clip_core.errors import ConfigError
from clip_core.layers.attention import Attention
from clip_train.checkpoint import disk
from clip_train.config import ModelConfig

__all__ = ["add_adapters", "apart", "has_adapters", "merged", "rejoined", "save_adapters", "scaling"]

_log = logging.getLogger(__name__)

# What peft puts between the names of a layer and of its weights, and what it calls the additions of one adapter.
_INNER, _LOW, _HIGH = ".base_layer", ".lora_A.default.weight", ".lora_B.default.weight"
# The weight of a linear layer, or of the three projections that come into an attention.
_ADAPTED = ("weight", "in_proj_weight")


def add_adapters(model: Clip, given: ModelConfig) -> None:
    """Lock the towers that `given` names and add trainable low-rank matrices to every linear layer in them, in place.

    The additions begin at zero, so the model computes what it did. What is outside of these towers is left as it is,
    trainable or not; their embeddings, norms and projections to the features are locked with them.

    Raises:
        ConfigError: peft is not installed, or a tower has no linear layer.
    """
    peft = _peft()
    assert given.lora_rank is not None
    for tower, root in _roots(model).items():
        if given.lora_towers not in ("both", tower):
            continue
        linear = [name for name, module in root.named_modules() if type(module) is nn.Linear]
        packed = [f"{n}.in_proj_weight" for n, module in root.named_modules() if isinstance(module, Attention)]
        if not linear:
            raise ConfigError(f"No layer of the {tower} tower is linear; leave it out of --lora-towers.")
        for name, parameter in model.named_parameters():
            if name.startswith("visual.") == (tower == "image") and not name.startswith(("logit_", "text_decoder.")):
                parameter.requires_grad_(False)
        settings = peft.LoraConfig(
            r=given.lora_rank,
            lora_alpha=given.lora_rank * scaling(given.lora_rank, given.lora_alpha),
            lora_dropout=0.0,
            # A list would be of endings, a text is of whole names.
            target_modules="|".join(re.escape(name) for name in linear),
            target_parameters=packed or None,
        )
        peft.inject_adapter_in_model(settings, root)
        added = sum(p.numel() for name, p in root.named_parameters() if ".lora_" in name)
        _log.info(
            "LoRA of rank %d on %d layers of the %s tower, %s numbers",
            settings.r,
            len(linear + packed),
            tower,
            f"{added:,}",
        )


def scaling(rank: int, alpha: float | None) -> float:
    """What the product of two low-rank matrices is multiplied by; `alpha` is twice the rank where it is None."""
    return 2.0 if alpha is None else alpha / rank


def has_adapters(model: nn.Module) -> bool:
    """Whether `add_adapters` changed it."""
    return any(".lora_" in name for name, _ in model.named_parameters())


def merged(tensors: Mapping[str, Tensor], scale: float) -> dict[str, Tensor]:
    """The state of a model with additions -> that of the plain model, with its own names and the additions in it.

    tensors: whole ones; those without additions are the same objects in what is given.
    """
    found = {name.replace(_INNER, ""): value for name, value in tensors.items() if ".lora_" not in name}
    for name, low in tensors.items():
        if not name.endswith(_LOW):
            continue
        layer = name.removesuffix(_LOW)
        held = next(f"{layer}{_INNER}.{own}" for own in _ADAPTED if f"{layer}{_INNER}.{own}" in tensors)
        high = tensors[layer + _HIGH].to(low.dtype)
        found[held.replace(_INNER, "")] = tensors[held] + (high @ low * scale).to(tensors[held].dtype)
    return found


def apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What has to be kept beside `merged`, so that `rejoined` gives `tensors` again, to the bit."""
    return {name: value for name, value in tensors.items() if _INNER in name or ".lora_" in name}


def rejoined(plain: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`merged` and `apart` of a state -> that state."""
    replaced = {name.replace(_INNER, "") for name in own}
    return {**{name: value for name, value in plain.items() if name not in replaced}, **own}


def save_adapters(model: Clip, tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Write the additions as peft does, those of each tower into a folder of its name: "image", "text".

    `peft.PeftModel.from_pretrained(TOWER, FOLDER)` puts them on a tower with the weights that training began from;
    the text tower is `model.text`, or `model.transformer` where the model has no such module.

    Args:
        model: has the additions, and says how they were made; in pieces or not.
        tensors: its state, whole and on the CPU.
        folder: where; it may exist. Raises `OSError` where it cannot be written.
    """
    for tower, root in _roots(model).items():
        settings: Any = getattr(root, "peft_config", {}).get("default")
        if settings is None:
            continue
        place = folder / tower
        place.mkdir(parents=True, exist_ok=True)
        kept = copy.copy(settings)
        kept.inference_mode = True
        kept.save_pretrained(str(place))
        for path in place.iterdir():
            disk.sync(path)
        prefix = f"{_root_name(model, tower)}."
        # A name begins with peft's two wrappers around a model, and has no word for the only adapter.
        additions = {
            "base_model.model." + name.removeprefix(prefix).replace(".default.", "."): value.contiguous()
            for name, value in tensors.items()
            if name.startswith(prefix) and ".lora_" in name
        }
        disk.write_tensors(place / "adapter_model.safetensors", additions)


def _root_name(model: Clip, tower: str) -> str:
    return "visual" if tower == "image" else "text" if model.text_prefix else "transformer"


def _roots(model: Clip) -> dict[str, nn.Module]:
    """Tower -> the module with all its layers."""
    return {tower: model.get_submodule(_root_name(model, tower)) for tower in ("image", "text")}


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise ConfigError(
            'LoRA needs the library peft, which is not installed: pip install "clip-train[lora]".'
        ) from error
    return peft
