"""Published weights of Meta CLIP 2, for texts in any language.

The accuracy of H/14 is that of its paper (Chuang et al. 2025); of the others none is known here.
"""

from __future__ import annotations

from clip_hub.tags.table import Row, rows

__all__ = ["TAGS"]

# model, tag, repository, data, samples seen in 10^9, ImageNet top-1, mean of 38 sets
# fmt: off
_QUICK_GELU: tuple[Row, ...] = (
    ("ViT-H-14-worldwide", "metaclip2_worldwide", "timm/vit_huge_patch14_clip_224.metaclip2_worldwide",
     "Meta CLIP 2, worldwide", None, 0.813, None),
)

_GELU: tuple[Row, ...] = (
    ("ViT-bigG-14-worldwide", "metaclip2_worldwide", "timm/vit_gigantic_patch14_clip_224.metaclip2_worldwide",
     "Meta CLIP 2, worldwide", None, None, None),
)

_SQUASHED: tuple[Row, ...] = (
    ("ViT-H-14-worldwide-378", "metaclip2_worldwide", "timm/vit_huge_patch14_clip_378.metaclip2_worldwide",
     "Meta CLIP 2, worldwide", None, None, None),
    ("ViT-bigG-14-worldwide-378", "metaclip2_worldwide", "timm/vit_gigantic_patch14_clip_378.metaclip2_worldwide",
     "Meta CLIP 2, worldwide", None, None, None),
)
# fmt: on

TAGS = (
    *rows(_QUICK_GELU, licence="cc-by-nc-4.0", activation="quick_gelu", measured_by="Chuang et al. 2025, Meta CLIP 2"),
    *rows(_GELU, licence="cc-by-nc-4.0"),
    *rows(_SQUASHED, licence="cc-by-nc-4.0", resize_mode="squash"),
)
