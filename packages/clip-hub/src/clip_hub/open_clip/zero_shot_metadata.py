"""OpenCLIP's names for what is in `clip_hub.drop_in.imagenet`."""

from __future__ import annotations

from clip_hub.drop_in.imagenet import IMAGENET_CLASSNAMES, OPENAI_IMAGENET_TEMPLATES, SIMPLE_IMAGENET_TEMPLATES

__all__ = ["IMAGENET_CLASSNAMES", "OPENAI_IMAGENET_TEMPLATES", "SIMPLE_IMAGENET_TEMPLATES"]
