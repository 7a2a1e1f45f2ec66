"""The operations that training and inference spend their time in, behind one name each.

`clip_loss` and `siglip_loss` hold memory linear in the batch, forward and backward, on every device.
"""

from __future__ import annotations

from clip_core.kernels.attention import attention
from clip_core.kernels.contrastive import clip_loss
from clip_core.kernels.dispatch import use_backend
from clip_core.kernels.explanation import explain
from clip_core.kernels.quick_gelu import quick_gelu
from clip_core.kernels.sigmoid import siglip_loss
from clip_core.kernels.varlen import packed_attention

__all__ = ["attention", "clip_loss", "explain", "packed_attention", "quick_gelu", "siglip_loss", "use_backend"]
