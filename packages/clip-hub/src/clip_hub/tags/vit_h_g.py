"""Published weights of ViT-H/14, ViT-g/14 and ViT-bigG/14.

Samples seen: what a tag says, MetaCLIP's README, OpenCLIP's README for DFN (39B, then 5B more at 378 pixels).
"""

from __future__ import annotations

from clip_hub.tags.table import DFN_LICENCE, METACLIP, PAGE, Row, card, imagenet, rows, with_facts

__all__ = ["TAGS"]

# model, tag, repository, data, samples seen in 10^9, ImageNet top-1, mean of 38 sets
# fmt: off
_LAION: tuple[Row, ...] = (
    ("ViT-H-14", "laion2b_s32b_b79k", "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
     "LAION-2B (English)", 32, 0.7796, 0.6419),
    ("ViT-g-14", "laion2b_s12b_b42k", "laion/CLIP-ViT-g-14-laion2B-s12B-b42K",
     "LAION-2B (English)", 12, 0.7663, 0.6299),
    ("ViT-g-14", "laion2b_s34b_b88k", "laion/CLIP-ViT-g-14-laion2B-s34B-b88K",
     "LAION-2B (English)", 34, 0.7847, 0.6427),
    ("ViT-bigG-14", "laion2b_s39b_b160k", "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k",
     "LAION-2B (English)", 39, 0.8009, 0.6667),
)

_METACLIP: tuple[Row, ...] = (
    ("ViT-H-14", "metaclip_fullcc", "timm/vit_huge_patch14_clip_224.metaclip_2pt5b",
     "MetaCLIP, 2.5B pairs", 12.8, 0.8051, 0.6671),
)

_METACLIP_README: tuple[Row, ...] = (
    ("ViT-bigG-14", "metaclip_fullcc", "timm/vit_gigantic_patch14_clip_224.metaclip_2pt5b",
     "MetaCLIP, 2.5B pairs", 12.8, 0.821, None),
)

_ALTOGETHER: tuple[Row, ...] = (
    ("ViT-H-14", "metaclip_altogether", "timm/vit_huge_patch14_clip_224.metaclip_altogether",
     "MetaCLIP, captions of Altogether", None, None, None),
)

_DFN: tuple[Row, ...] = (
    ("ViT-H-14", "dfn5b", "apple/DFN5B-CLIP-ViT-H-14", "DFN-5B", 39, 0.8344, 0.6961),
    ("ViT-H-14-378", "dfn5b", "apple/DFN5B-CLIP-ViT-H-14-378", "DFN-5B", 44, 0.8437, 0.7079),
)
# fmt: on

_README = "README of facebookresearch/MetaCLIP"

_URLS = {
    "ViT-H-14:metaclip_fullcc": f"{METACLIP}h14_fullcc2.5b.pt",
    "ViT-bigG-14:metaclip_fullcc": f"{METACLIP}G14_fullcc2.5b.pt",
    "ViT-H-14:metaclip_altogether": f"{METACLIP}h14_v1.2_altogether.pt",
}

_SCORES = {
    "ViT-H-14:laion2b_s32b_b79k": [imagenet(0.78, PAGE)],
    "ViT-g-14:laion2b_s12b_b42k": [imagenet(0.766, PAGE)],
    "ViT-g-14:laion2b_s34b_b88k": [imagenet(0.784, card("laion/CLIP-ViT-g-14-laion2B-s34B-b88K"))],
}

TAGS = with_facts(
    (
        *rows(_LAION, licence="mit"),
        *rows(_METACLIP, licence="cc-by-nc-4.0", activation="quick_gelu"),
        *rows(_METACLIP_README, licence="cc-by-nc-4.0", activation="quick_gelu", measured_by=_README),
        *rows(_ALTOGETHER, licence="cc-by-nc-4.0"),
        *rows(_DFN, licence="apple-ascl", activation="quick_gelu", resize_mode="squash", note=DFN_LICENCE),
    ),
    urls=_URLS,
    scores=_SCORES,
)
