"""Low-rank additions to the layers of locked towers (LoRA, Hu et al. 2022), through the library peft.

Training holds them beside the weights, which stay as they are; a bundle has the sum. What this room leaves out: which
flags ask for it (`config.model`).
"""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

from torch import nn

from clip_core import Clip
from clip_core.errors import ConfigError
from clip_core.layers.attention import Attention
from clip_train.config import ModelConfig

__all__ = ["add_adapters", "has_adapters", "merged", "save_adapters"]

_log = logging.getLogger(__name__)


def add_adapters(model: Clip, given: ModelConfig) -> None:
    """Lock the towers that `given` names and add trainable low-rank matrices to every linear layer in them, in place.

    The additions begin at zero, so the model computes what it did. What is outside of these towers is left as it is,
    trainable or not; their projections to the features, which are no layers, are locked with them.

    Raises:
        ConfigError: peft is not installed.
    """
    peft = _peft()
    assert given.lora_rank is not None
    outside = {id(p): p.requires_grad for name, p in model.named_parameters() if not _is_in(name, model, given)}
    modules = [(name, module) for name, module in model.named_modules() if _is_in(f"{name}.", model, given)]
    linear = [name for name, module in modules if type(module) is nn.Linear]
    packed = [f"{name}.in_proj_weight" for name, module in modules if isinstance(module, Attention)]
    if not linear:
        raise ConfigError(f"lora_towers is {given.lora_towers!r}, and no layer there is linear; leave --lora-rank out.")
    settings = peft.LoraConfig(
        r=given.lora_rank,
        lora_alpha=given.lora_alpha if given.lora_alpha is not None else 2 * given.lora_rank,
        lora_dropout=0.0,
        target_modules=linear,
        target_parameters=packed or None,
    )
    originals = list(model.named_parameters())
    peft.inject_adapter_in_model(settings, model)
    for _, parameter in originals:
        # peft locks all that is no addition of its own.
        parameter.requires_grad_(outside.get(id(parameter), False))
    added = sum(p.numel() for name, p in model.named_parameters() if ".lora_" in name)
    _log.info("LoRA of rank %d on %d layers, %s numbers", given.lora_rank, len(linear) + len(packed), f"{added:,}")


def has_adapters(model: nn.Module) -> bool:
    """Whether `add_adapters` changed it."""
    return any(".lora_" in name for name, _ in model.named_parameters())


def merged(model: Clip) -> Clip:
    """A copy of `model` with the additions in the weights and its own names again."""
    plain = copy.deepcopy(model)
    _unwrap(plain)
    return plain


def save_adapters(model: Clip, folder: Path) -> None:
    """Write the additions and how they were made as peft does: adapter_config.json, adapter_model.safetensors."""
    peft = _peft()
    from safetensors.torch import save_file

    held: Any = model.peft_config
    held["default"].save_pretrained(str(folder))
    tensors = peft.get_peft_model_state_dict(model, save_embedding_layers=False)
    save_file({name: value.contiguous().cpu() for name, value in tensors.items()}, folder / "adapter_model.safetensors")


def _is_in(name: str, model: Clip, given: ModelConfig) -> bool:
    if name.startswith(("logit_", ".")):
        return False
    image = name.startswith("visual.")
    if not image and (model.text_prefix and not name.startswith(model.text_prefix)):
        return False
    return given.lora_towers in ("both", "image" if image else "text")


def _unwrap(parent: nn.Module) -> None:
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, child in list(parent.named_children()):
        plain: Any = child
        while isinstance(plain, BaseTunerLayer):
            plain.merge()
            plain = getattr(plain, "base_layer")  # noqa: B009  # which it states nowhere
        setattr(parent, name, plain)
        _unwrap(plain)


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise ConfigError(
            'LoRA needs the library peft, which is not installed: pip install "clip-train[lora]".'
        ) from error
    return peft
