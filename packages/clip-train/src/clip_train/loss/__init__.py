"""The contrastive losses over the batch of several processes: exact, whatever their number.

The arithmetic is clip-core's (`clip_core.kernels.parts`); this room has what travels between processes. With one
process the losses are `clip_core.kernels.clip_loss` and `siglip_loss` themselves.
"""

from __future__ import annotations

from clip_train.loss.contrastive import ContrastiveLoss, Kind, Scheme, clip_loss, siglip_loss

__all__ = ["ContrastiveLoss", "Kind", "Scheme", "clip_loss", "siglip_loss"]
