"""OpenCLIP's names for what is in `clip_hub.drop_in.zero_shot`."""

from __future__ import annotations

from clip_hub.drop_in.zero_shot import build_zero_shot_classifier, build_zero_shot_classifier_legacy

__all__ = ["build_zero_shot_classifier", "build_zero_shot_classifier_legacy"]
