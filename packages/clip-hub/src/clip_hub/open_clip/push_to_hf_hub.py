"""OpenCLIP's names for what is in `clip_hub.drop_in.publishing`."""

from __future__ import annotations

from clip_hub.drop_in.publishing import push_pretrained_to_hf_hub, push_to_hf_hub

__all__ = ["push_pretrained_to_hf_hub", "push_to_hf_hub"]
