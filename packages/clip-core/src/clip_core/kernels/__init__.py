"""The operations that training and inference spend their time in, behind one name each.

So far: `clip_loss` in plain torch, the reference that faster versions are held against.
"""

from __future__ import annotations

from clip_core.kernels.contrastive import clip_loss

__all__ = ["clip_loss"]
