"""OpenCLIP's names for what is in `clip_hub.drop_in.losses`."""

from __future__ import annotations

from clip_hub.drop_in.losses import ClipLoss, CoCaLoss, DistillClipLoss, SigLipLoss

__all__ = ["ClipLoss", "CoCaLoss", "DistillClipLoss", "SigLipLoss"]
