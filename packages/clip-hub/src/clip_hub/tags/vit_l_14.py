"""Published weights of ViT-L/14, at 224 and 336 pixels.

Sources as in `vit_b_32`.
"""

from __future__ import annotations

from clip_core.presets.parts import INCEPTION_MEAN, INCEPTION_STD
from clip_hub.tags.table import (
    COPIED,
    DFN_LICENCE,
    METACLIP,
    OPENAI,
    PAGE,
    RELEASE,
    Row,
    card,
    imagenet,
    rows,
    with_facts,
)

__all__ = ["TAGS"]

# model, tag, repository, data, samples seen in 10^9, ImageNet top-1, mean of 38 sets
# fmt: off
_OPENAI: tuple[Row, ...] = (
    ("ViT-L-14", "openai", "timm/vit_large_patch14_clip_224.openai",
     "WebImageText, 400M pairs (not published)", 12.8, 0.7554, 0.6173),
    ("ViT-L-14-336", "openai", "timm/vit_large_patch14_clip_336.openai",
     "WebImageText, 400M pairs (not published)", 12.8, 0.7656, 0.6284),
)

_LAION_400M: tuple[Row, ...] = (
    ("ViT-L-14", "laion400m_e31", "timm/vit_large_patch14_clip_224.laion400m_e31", "LAION-400M", None, 0.7271, 0.5964),
    ("ViT-L-14", "laion400m_e32", "timm/vit_large_patch14_clip_224.laion400m_e32", "LAION-400M", None, 0.7277, 0.5971),
)

_LAION_2B: tuple[Row, ...] = (
    ("ViT-L-14", "laion2b_s32b_b82k", "laion/CLIP-ViT-L-14-laion2B-s32B-b82K",
     "LAION-2B (English)", 32, 0.7525, 0.6205),
)

_METACLIP: tuple[Row, ...] = (
    ("ViT-L-14", "metaclip_400m", "timm/vit_large_patch14_clip_224.metaclip_400m",
     "MetaCLIP, 400M pairs", 12.8, 0.762, 0.6252),
    ("ViT-L-14", "metaclip_fullcc", "timm/vit_large_patch14_clip_224.metaclip_2pt5b",
     "MetaCLIP, 2.5B pairs", 12.8, 0.7917, 0.6592),
)

_DFN: tuple[Row, ...] = (
    ("ViT-L-14", "dfn2b", "apple/DFN2B-CLIP-ViT-L-14", "DFN-2B", None, 0.8141, 0.6687),
)

_DFN_39B: tuple[Row, ...] = (
    ("ViT-L-14", "dfn2b_s39b", "apple/DFN2B-CLIP-ViT-L-14-39B", "DFN-2B", 39, 0.8219, 0.6804),
)

_DATACOMP: tuple[Row, ...] = (
    ("ViT-L-14", "datacomp_xl_s13b_b90k", "laion/CLIP-ViT-L-14-DataComp.XL-s13B-b90K",
     "DataComp-1B", 12.8, 0.7921, 0.6627),
)

_POOLS: tuple[Row, ...] = (
    ("ViT-L-14", "commonpool_xl_clip_s13b_b90k", "laion/CLIP-ViT-L-14-CommonPool.XL.clip-s13B-b90K",
     "CommonPool xlarge, filtered by CLIP score", 12.8, 0.7637, 0.6501),
    ("ViT-L-14", "commonpool_xl_laion_s13b_b90k", "laion/CLIP-ViT-L-14-CommonPool.XL.laion-s13B-b90K",
     "CommonPool xlarge, filtered by LAION's rules", 12.8, 0.7545, 0.636),
    ("ViT-L-14", "commonpool_xl_s13b_b90k", "laion/CLIP-ViT-L-14-CommonPool.XL-s13B-b90K",
     "CommonPool xlarge, unfiltered", 12.8, 0.7229, 0.6207),
)
# fmt: on

_URLS = {
    "ViT-L-14:openai": f"{OPENAI}b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836/ViT-L-14.pt",
    "ViT-L-14-336:openai": f"{OPENAI}3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02/"
    "ViT-L-14-336px.pt",
    "ViT-L-14:laion400m_e31": f"{RELEASE}vit_l_14-laion400m_e31-69988bb6.pt",
    "ViT-L-14:laion400m_e32": f"{RELEASE}vit_l_14-laion400m_e32-3d133497.pt",
    "ViT-L-14:metaclip_400m": f"{METACLIP}l14_400m.pt",
    "ViT-L-14:metaclip_fullcc": f"{METACLIP}l14_fullcc2.5b.pt",
}

_SCORES = {
    "ViT-L-14:laion400m_e32": [imagenet(0.7277, PAGE)],
    "ViT-L-14:laion2b_s32b_b82k": [imagenet(0.753, PAGE)],
    "ViT-L-14:datacomp_xl_s13b_b90k": [imagenet(0.792, PAGE)],
    "ViT-L-14:commonpool_xl_clip_s13b_b90k": [imagenet(0.764, PAGE)],
    "ViT-L-14:commonpool_xl_laion_s13b_b90k": [imagenet(0.755, PAGE)],
    "ViT-L-14:commonpool_xl_s13b_b90k": [imagenet(0.723, PAGE)],
}

_NOTES = {
    "ViT-L-14:laion2b_s32b_b82k": "Its images are scaled to -1 to 1, unlike those of OpenCLIP's other models.",
}

TAGS = with_facts(
    (
        *rows(_OPENAI, licence="mit", activation="quick_gelu", note=COPIED),
        *rows(_LAION_400M, licence="mit"),
        *rows(_LAION_2B, licence="mit", mean=INCEPTION_MEAN, std=INCEPTION_STD),
        *rows(_METACLIP, licence="cc-by-nc-4.0", activation="quick_gelu"),
        *rows(_DFN, licence="apple-ascl", activation="quick_gelu", note=DFN_LICENCE),
        *rows(_DFN_39B, licence="apple-ascl", note=DFN_LICENCE, measured_by=card("apple/DFN2B-CLIP-ViT-L-14-39B")),
        *rows(_DATACOMP, licence="mit"),
        *rows(_POOLS, licence="mit"),
    ),
    urls=_URLS,
    scores=_SCORES,
    notes=_NOTES,
)
