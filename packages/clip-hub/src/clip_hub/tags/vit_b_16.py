"""Published weights of ViT-B/16, and of the wider ViT-B/16+ at 240 pixels.

Sources as in `vit_b_32`.
"""

from __future__ import annotations

from clip_hub.tags.table import COPIED, DFN_LICENCE, METACLIP, OPENAI, PAGE, RELEASE, Row, imagenet, rows, with_facts

__all__ = ["TAGS"]

# model, tag, repository, data, samples seen in 10^9, ImageNet top-1, mean of 38 sets
# fmt: off
_OPENAI: tuple[Row, ...] = (
    ("ViT-B-16", "openai", "timm/vit_base_patch16_clip_224.openai",
     "WebImageText, 400M pairs (not published)", 12.8, 0.6834, 0.5626),
)

_LAION: tuple[Row, ...] = (
    ("ViT-B-16", "laion400m_e31", "timm/vit_base_patch16_clip_224.laion400m_e31", "LAION-400M", None, 0.6698, 0.5617),
    ("ViT-B-16", "laion400m_e32", "timm/vit_base_patch16_clip_224.laion400m_e32", "LAION-400M", None, 0.6705, 0.5621),
    ("ViT-B-16", "laion2b_s34b_b88k", "laion/CLIP-ViT-B-16-laion2B-s34B-b88K",
     "LAION-2B (English)", 34, 0.7023, 0.5866),
    ("ViT-B-16-plus-240", "laion400m_e31", "timm/vit_base_patch16_plus_clip_240.laion400m_e31",
     "LAION-400M", None, 0.6904, 0.5713),
    ("ViT-B-16-plus-240", "laion400m_e32", "timm/vit_base_patch16_plus_clip_240.laion400m_e32",
     "LAION-400M", None, 0.6919, 0.5724),
)

_METACLIP: tuple[Row, ...] = (
    ("ViT-B-16", "metaclip_400m", "timm/vit_base_patch16_clip_224.metaclip_400m",
     "MetaCLIP, 400M pairs", 12.8, 0.708, 0.5785),
    ("ViT-B-16", "metaclip_fullcc", "timm/vit_base_patch16_clip_224.metaclip_2pt5b",
     "MetaCLIP, 2.5B pairs", 12.8, 0.7212, 0.6041),
)

_DFN: tuple[Row, ...] = (
    ("ViT-B-16", "dfn2b", "apple/DFN2B-CLIP-ViT-B-16", "DFN-2B", None, 0.7624, 0.6092),
)

_DATACOMP: tuple[Row, ...] = (
    ("ViT-B-16", "datacomp_xl_s13b_b90k", "laion/CLIP-ViT-B-16-DataComp.XL-s13B-b90K",
     "DataComp-1B", 12.8, 0.7349, 0.6147),
)

_POOLS: tuple[Row, ...] = (
    ("ViT-B-16", "datacomp_l_s1b_b8k", "laion/CLIP-ViT-B-16-DataComp.L-s1B-b8K",
     "DataComp large, best filter", 1.28, 0.631, 0.5372),
    ("ViT-B-16", "commonpool_l_basic_s1b_b8k", "laion/CLIP-ViT-B-16-CommonPool.L.basic-s1B-b8K",
     "CommonPool large, filtered by basic rules", 1.28, 0.5155, 0.4585),
    ("ViT-B-16", "commonpool_l_clip_s1b_b8k", "laion/CLIP-ViT-B-16-CommonPool.L.clip-s1B-b8K",
     "CommonPool large, filtered by CLIP score", 1.28, 0.5777, 0.5294),
    ("ViT-B-16", "commonpool_l_image_s1b_b8k", "laion/CLIP-ViT-B-16-CommonPool.L.image-s1B-b8K",
     "CommonPool large, filtered by image", 1.28, 0.5719, 0.4812),
    ("ViT-B-16", "commonpool_l_laion_s1b_b8k", "laion/CLIP-ViT-B-16-CommonPool.L.laion-s1B-b8K",
     "CommonPool large, filtered by LAION's rules", 1.28, 0.5526, 0.5011),
    ("ViT-B-16", "commonpool_l_s1b_b8k", "laion/CLIP-ViT-B-16-CommonPool.L-s1B-b8K",
     "CommonPool large, unfiltered", 1.28, 0.4593, 0.437),
    ("ViT-B-16", "commonpool_l_text_s1b_b8k", "laion/CLIP-ViT-B-16-CommonPool.L.text-s1B-b8K",
     "CommonPool large, filtered by text", 1.28, 0.5605, 0.476),
)
# fmt: on

_URLS = {
    "ViT-B-16:openai": f"{OPENAI}5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f/ViT-B-16.pt",
    "ViT-B-16:laion400m_e31": f"{RELEASE}vit_b_16-laion400m_e31-00efa78f.pt",
    "ViT-B-16:laion400m_e32": f"{RELEASE}vit_b_16-laion400m_e32-55e67d44.pt",
    "ViT-B-16-plus-240:laion400m_e31": f"{RELEASE}vit_b_16_plus_240-laion400m_e31-8fb26589.pt",
    "ViT-B-16-plus-240:laion400m_e32": f"{RELEASE}vit_b_16_plus_240-laion400m_e32-699c4b84.pt",
    "ViT-B-16:metaclip_400m": f"{METACLIP}b16_400m.pt",
    "ViT-B-16:metaclip_fullcc": f"{METACLIP}b16_fullcc2.5b.pt",
}

_SCORES = {
    "ViT-B-16:laion400m_e32": [imagenet(0.6707, PAGE)],
    "ViT-B-16-plus-240:laion400m_e32": [imagenet(0.6921, PAGE)],
}

_NOTES = {
    "ViT-B-16:laion400m_e31": "Shards of the training data were not shuffled properly before epoch 26.",
    "ViT-B-16:laion400m_e32": "Shards of the training data were not shuffled properly before epoch 26.",
    "ViT-B-16-plus-240:laion400m_e32": "For this tag open_clip 3.3.0 names the repository of laion400m_e31, "
    "and so loads those weights. This one is what timm's registry names; if it is not there, the url has the file.",
}

TAGS = with_facts(
    (
        *rows(_OPENAI, licence="mit", activation="quick_gelu", note=COPIED),
        *rows(_LAION, licence="mit"),
        *rows(_METACLIP, licence="cc-by-nc-4.0", activation="quick_gelu"),
        *rows(_DFN, licence="apple-ascl", activation="quick_gelu", note=DFN_LICENCE),
        *rows(_DATACOMP, licence="mit"),
        *rows(_POOLS, licence="mit"),
    ),
    urls=_URLS,
    scores=_SCORES,
    notes=_NOTES,
)
