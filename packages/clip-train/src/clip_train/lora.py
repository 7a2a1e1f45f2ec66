"""Low-rank additions to the layers of locked towers (LoRA, Hu et al. 2022), through the library peft.

Training holds them beside the weights, which stay as they are; a bundle has the sum. What this room leaves out: which
flags ask for it (`config.model`).
"""

from __future__ import annotations

import copy
import logging
import re
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
    trainable or not; their embeddings, norms and projections to the features are locked with them.

    Raises:
        ConfigError: peft is not installed, or a tower has no linear layer.
    """
    peft = _peft()
    assert given.lora_rank is not None
    alpha = given.lora_alpha if given.lora_alpha is not None else 2 * given.lora_rank
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
            lora_alpha=alpha,
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


def _roots(model: Clip) -> dict[str, nn.Module]:
    """Tower -> the module with all its layers."""
    return {"image": model.visual, "text": model.get_submodule("text" if model.text_prefix else "transformer")}


def has_adapters(model: nn.Module) -> bool:
    """Whether `add_adapters` changed it."""
    return any(".lora_" in name for name, _ in model.named_parameters())


def merged(model: Clip) -> Clip:
    """A copy of `model` with the additions in the weights and its own names again."""
    plain = copy.deepcopy(model)
    _unwrap(plain)
    return plain


def save_adapters(model: Clip, folder: Path) -> None:
    """Write the additions and how they were made as peft does, each tower's into a folder of its name."""
    peft = _peft()
    from safetensors.torch import save_file

    for tower, root in _roots(model).items():
        held: Any = getattr(root, "peft_config", None)
        if held is None:
            continue
        held["default"].save_pretrained(str(folder / tower))
        tensors = peft.get_peft_model_state_dict(root, save_embedding_layers=False)
        plain = {name: value.contiguous().cpu() for name, value in tensors.items()}
        save_file(plain, folder / tower / "adapter_model.safetensors")


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
