"""How much of the device a run uses: operations that the model needs, against those that the device can do.

MFU (Chowdhery et al. 2022) is the share of the peak that the model's own operations have; what is computed twice for
memory's sake (gradient checkpointing, GradCache) does not count. A multiplication with an addition is two operations,
the backward pass twice the forward pass, and a tower that is not trained has none.
"""

from __future__ import annotations

import re
import sys
from typing import NamedTuple

import torch

from clip_core import Bundle, Clip
from clip_core.config import NaFlexConfig
from clip_core.kernels.dispatch import use_backend
from clip_core.preprocess_naflex import cut_patches, stack_patches

__all__ = ["PEAKS", "Cost", "Peak", "count_cost", "find_peak", "peak_memory"]


class Peak(NamedTuple):
    """What a device does at most, 10^12 operations per second, dense, as its maker states it."""

    half: float | None
    """bfloat16 and float16 with sums in float32; None where bfloat16 is not made for."""
    tf32: float | None
    full: float
    """float32."""


# Words of the name that torch has for the device -> peak; the first that fits counts. From data sheets of NVIDIA and
# AMD, where these count sparsity, half of it; for H100, H200, A100, B200 and MI300X torchtitan has the same numbers.
PEAKS: dict[str, Peak] = {
    "GB200": Peak(2500, 1250, 80),
    "B200": Peak(2250, 1125, 75),
    "H200 NVL": Peak(835.5, 417.5, 60),
    "H200": Peak(989.4, 494.7, 66.9),
    "GH200": Peak(989.4, 494.7, 66.9),
    "H100 PCIe": Peak(756.5, 378, 51.2),
    "H100 NVL": Peak(835.5, 417.5, 60),
    "H100": Peak(989.4, 494.7, 66.9),
    "A100": Peak(312, 156, 19.5),
    "A40": Peak(149.7, 74.8, 37.4),
    "L40S": Peak(362.05, 183, 91.6),
    "L40": Peak(181.05, 90.5, 90.5),
    "L4": Peak(121, 60, 30.3),
    "V100": Peak(None, None, 15.7),
    "T4": Peak(None, None, 8.1),
    "RTX 4090": Peak(165.2, 82.6, 82.6),
    "RTX 3090": Peak(71, 35.6, 35.6),
    "MI300X": Peak(1307.4, 653.7, 163.4),
}
# A part of a GPU, or one with less power under the same name.
_LESS = re.compile(r"\b(MIG|Laptop|Max-Q|RTX 4090 D)\b")


def find_peak(name: str, precision: str, *, tf32: bool = False) -> float | None:
    """Operations per second at most of the device that torch calls `name`; None where it is not known.

    precision: a run's; tf32: whether products of float32 may be made in TF32.
    """
    if _LESS.search(name):
        return None
    peak = next((facts for words, facts in PEAKS.items() if re.search(rf"\b{words}\b", name)), None)
    if peak is None:
        return None
    value = (peak.tf32 if tf32 else peak.full) if precision == "fp32" else peak.half
    return None if value is None else 1e12 * value


class Cost(NamedTuple):
    """Operations of training on one pair, forward and backward."""

    image: float
    text: float
    """Of a caption that fills the context."""
    context: int
    patches: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Of an image of patches: what it costs in any case, for each of them, and for the square of their number."""

    def of(self, tokens: float, patches: int | None = None) -> float:
        """For a caption of `tokens`, and an image of so many `patches`, or of the model's size.

        Attention over a text is small, so operations go by its length.
        """
        text = self.text * tokens / self.context
        if patches is None:
            return self.image + text
        always, each, pair = self.patches
        return always + each * patches + pair * patches**2 + text


def count_cost(bundle: Bundle) -> Cost:
    """What one pair costs the model of `bundle`, which stays as it is; convolutions and matrix products are counted.

    It is called on a whole model, before its parameters are divided among processes.
    """
    from torch.utils.flop_counter import FlopCounterMode

    model, size = bundle.model, bundle.config.preprocess.size
    height, width = (size, size) if isinstance(size, int) else size
    tokens = bundle.tokenizer(["a " * 2 * bundle.tokenizer.context_length])
    modes = [(module, module.training) for module in model.modules()]
    trained = {True: False, False: False}
    for name, parameter in model.named_parameters():
        if name not in ("logit_scale", "logit_bias"):
            trained[name.startswith("visual.")] |= parameter.requires_grad
    model.eval()
    try:
        with torch.no_grad(), use_backend("torch"):
            with FlopCounterMode(display=False) as images:
                device = model.logit_scale.device
                model.encode_image(torch.zeros(1, 3, height, width, device=device, dtype=model.dtype))
            patches = _count_patches(model, passes=3 if trained[True] else 1)
            with FlopCounterMode(display=False) as texts:
                model.encode_text(tokens.to(device), deterministic=True)
    finally:
        for module, training in modes:
            module.training = training
    return Cost(
        images.get_total_flops() * (3 if trained[True] else 1),
        texts.get_total_flops() * (3 if trained[False] else 1),
        tokens.shape[1],
        patches,
    )


def _count_patches(model: Clip, passes: int) -> tuple[float, float, float]:
    """`Cost.patches` of a NaFlex model; zeros of any other. Three counts decide the three numbers."""
    from torch.utils.flop_counter import FlopCounterMode

    tower = model.config.image
    if not isinstance(tower, NaFlexConfig):
        return 0.0, 0.0, 0.0
    unit, device = 16, model.logit_scale.device
    found = []
    for places in (unit, 2 * unit, 3 * unit):
        image = torch.zeros(3, tower.patch_size, places * tower.patch_size)
        patches = stack_patches([cut_patches(image, tower.patch_size, places)])
        with FlopCounterMode(display=False) as counter:
            model.encode_image({name: value.to(device) for name, value in patches.items()})
        found.append(passes * counter.get_total_flops())
    one, two, three = found
    pair = (three - 2 * two + one) / (2 * unit**2)
    each = (two - one) / unit - 3 * unit * pair
    return one - each * unit - pair * unit**2, each, pair


def peak_memory(device: torch.device) -> int:
    """The most bytes so far: of tensors on a GPU, on a CPU of the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return 0
    import resource

    # Linux counts kilobytes, macOS bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
