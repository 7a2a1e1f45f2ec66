"""CLIP's symmetric contrastive loss (Radford et al. 2021, figure 3), plain torch.

Shapes: B pairs, D features.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from clip_core.errors import ConfigError

__all__ = ["clip_loss"]


def clip_loss(
    image_features: Tensor, text_features: Tensor, logit_scale: Tensor, logit_bias: Tensor | None = None
) -> Tensor:
    """Mean over both directions of the cross-entropy of each feature with its own partner among all B.

    Args:
        image_features: (B, D), rows of length 1.
        text_features: (B, D), rows of length 1; row i belongs to image i.
        logit_scale: scalar that multiplies the cosines (already exponentiated).
        logit_bias: scalar added to every logit, or None. It cancels in the softmax; it is taken so that every
            model's output can be passed as it is.

    Returns:
        Scalar in nats, float32 (float64 for float64 features), also under autocast.

    Raises:
        ConfigError: the two sides differ in shape, or hold no pair.
    """
    if image_features.shape != text_features.shape or image_features.ndim != 2 or not len(image_features):
        raise ConfigError(
            f"clip_loss got image features {tuple(image_features.shape)} and text features "
            f"{tuple(text_features.shape)}; allowed: two of one shape (pairs, features), one pair or more."
        )
    # Differences of logits around 100 are lost in bfloat16, so autocast has no say here.
    with torch.autocast(image_features.device.type, enabled=False):
        dtype = torch.promote_types(image_features.dtype, torch.float32)
        logits = logit_scale.to(dtype) * image_features.to(dtype) @ text_features.to(dtype).T
        if logit_bias is not None:
            logits = logits + logit_bias.to(dtype)
        partner = torch.arange(len(logits), device=logits.device)
        return (F.cross_entropy(logits, partner) + F.cross_entropy(logits.T, partner)) / 2
