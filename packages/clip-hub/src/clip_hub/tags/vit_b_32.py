"""Published weights of ViT-B/32.

Samples seen: what a tag says; for OpenAI 32 rounds of 400M pairs (Radford et al. 2021); for DataComp's pools 12.8M,
128M, 1.28B and 12.8B from small to xlarge (Gadre et al. 2023); for MetaCLIP its README. Licences: the cards on the
Hub; timm for its copies of what OpenCLIP released.
"""

from __future__ import annotations

from clip_hub.tags.table import COPIED, METACLIP, OPENAI, PAGE, RELEASE, Row, imagenet, rows, with_facts

__all__ = ["TAGS"]

# model, tag, repository, data, samples seen in 10^9, ImageNet top-1, mean of 38 sets
# fmt: off
_OPENAI: tuple[Row, ...] = (
    ("ViT-B-32", "openai", "timm/vit_base_patch32_clip_224.openai",
     "WebImageText, 400M pairs (not published)", 12.8, 0.6332, 0.5245),
)

_LAION_400M: tuple[Row, ...] = (
    ("ViT-B-32", "laion400m_e31", "timm/vit_base_patch32_clip_224.laion400m_e31", "LAION-400M", None, 0.6294, 0.5263),
    ("ViT-B-32", "laion400m_e32", "timm/vit_base_patch32_clip_224.laion400m_e32", "LAION-400M", None, 0.6293, 0.5272),
)

_LAION_2B: tuple[Row, ...] = (
    ("ViT-B-32", "laion2b_e16", "timm/vit_base_patch32_clip_224.laion2b_e16",
     "LAION-2B (English)", None, 0.6565, 0.5483),
    ("ViT-B-32", "laion2b_s34b_b79k", "laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
     "LAION-2B (English)", 34, 0.6656, 0.5694),
)

_METACLIP: tuple[Row, ...] = (
    ("ViT-B-32", "metaclip_400m", "timm/vit_base_patch32_clip_224.metaclip_400m",
     "MetaCLIP, 400M pairs", 12.8, 0.6558, 0.5387),
    ("ViT-B-32", "metaclip_fullcc", "timm/vit_base_patch32_clip_224.metaclip_2pt5b",
     "MetaCLIP, 2.5B pairs", 12.8, 0.6766, 0.5577),
)

_DATACOMP: tuple[Row, ...] = (
    ("ViT-B-32", "datacomp_xl_s13b_b90k", "laion/CLIP-ViT-B-32-DataComp.XL-s13B-b90K",
     "DataComp-1B", 12.8, 0.6917, 0.5795),
    ("ViT-B-32-256", "datacomp_s34b_b86k", "laion/CLIP-ViT-B-32-256x256-DataComp-s34B-b86K",
     "DataComp-1B", 34, 0.7281, 0.6087),
)

_POOLS: tuple[Row, ...] = (
    ("ViT-B-32", "datacomp_m_s128m_b4k", "laion/CLIP-ViT-B-32-DataComp.M-s128M-b4K",
     "DataComp medium, best filter", 0.128, 0.2972, 0.3281),
    ("ViT-B-32", "commonpool_m_basic_s128m_b4k", "laion/CLIP-ViT-B-32-CommonPool.M.basic-s128M-b4K",
     "CommonPool medium, filtered by basic rules", 0.128, 0.2255, 0.2849),
    ("ViT-B-32", "commonpool_m_clip_s128m_b4k", "laion/CLIP-ViT-B-32-CommonPool.M.clip-s128M-b4K",
     "CommonPool medium, filtered by CLIP score", 0.128, 0.2725, 0.3278),
    ("ViT-B-32", "commonpool_m_image_s128m_b4k", "laion/CLIP-ViT-B-32-CommonPool.M.image-s128M-b4K",
     "CommonPool medium, filtered by image", 0.128, 0.2678, 0.3118),
    ("ViT-B-32", "commonpool_m_laion_s128m_b4k", "laion/CLIP-ViT-B-32-CommonPool.M.laion-s128M-b4K",
     "CommonPool medium, filtered by LAION's rules", 0.128, 0.2304, 0.2919),
    ("ViT-B-32", "commonpool_m_s128m_b4k", "laion/CLIP-ViT-B-32-CommonPool.M-s128M-b4K",
     "CommonPool medium, unfiltered", 0.128, 0.1755, 0.258),
    ("ViT-B-32", "commonpool_m_text_s128m_b4k", "laion/CLIP-ViT-B-32-CommonPool.M.text-s128M-b4K",
     "CommonPool medium, filtered by text", 0.128, 0.2548, 0.3066),
    ("ViT-B-32", "datacomp_s_s13m_b4k", "laion/CLIP-ViT-B-32-DataComp.S-s13M-b4K",
     "DataComp small, best filter", 0.0128, 0.0392, 0.1449),
    ("ViT-B-32", "commonpool_s_basic_s13m_b4k", "laion/CLIP-ViT-B-32-CommonPool.S.basic-s13M-b4K",
     "CommonPool small, filtered by basic rules", 0.0128, 0.0377, 0.1423),
    ("ViT-B-32", "commonpool_s_clip_s13m_b4k", "laion/CLIP-ViT-B-32-CommonPool.S.clip-s13M-b4K",
     "CommonPool small, filtered by CLIP score", 0.0128, 0.0505, 0.1731),
    ("ViT-B-32", "commonpool_s_image_s13m_b4k", "laion/CLIP-ViT-B-32-CommonPool.S.image-s13M-b4K",
     "CommonPool small, filtered by image", 0.0128, 0.0392, 0.1449),
    ("ViT-B-32", "commonpool_s_laion_s13m_b4k", "laion/CLIP-ViT-B-32-CommonPool.S.laion-s13M-b4K",
     "CommonPool small, filtered by LAION's rules", 0.0128, 0.0305, 0.1332),
    ("ViT-B-32", "commonpool_s_s13m_b4k", "laion/CLIP-ViT-B-32-CommonPool.S-s13M-b4K",
     "CommonPool small, unfiltered", 0.0128, 0.027, 0.142),
    ("ViT-B-32", "commonpool_s_text_s13m_b4k", "laion/CLIP-ViT-B-32-CommonPool.S.text-s13M-b4K",
     "CommonPool small, filtered by text", 0.0128, 0.046, 0.1573),
)
# fmt: on

_URLS = {
    "ViT-B-32:openai": f"{OPENAI}40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af/ViT-B-32.pt",
    "ViT-B-32:laion400m_e31": f"{RELEASE}vit_b_32-quickgelu-laion400m_e31-d867053b.pt",
    "ViT-B-32:laion400m_e32": f"{RELEASE}vit_b_32-quickgelu-laion400m_e32-46683a32.pt",
    "ViT-B-32:laion2b_e16": f"{RELEASE}vit_b_32-laion2b_e16-af8dbd0c.pth",
    "ViT-B-32:metaclip_400m": f"{METACLIP}b32_400m.pt",
    "ViT-B-32:metaclip_fullcc": f"{METACLIP}b32_fullcc2.5b.pt",
}

_SCORES = {
    "ViT-B-32:laion400m_e32": [imagenet(0.6296, PAGE)],
    "ViT-B-32:laion2b_e16": [imagenet(0.6562, PAGE)],
    "ViT-B-32:laion2b_s34b_b79k": [imagenet(0.666, PAGE)],
}

TAGS = with_facts(
    (
        *rows(_OPENAI, licence="mit", activation="quick_gelu", note=COPIED),
        *rows(_LAION_400M, licence="mit", activation="quick_gelu"),
        *rows(_LAION_2B, licence="mit"),
        *rows(_METACLIP, licence="cc-by-nc-4.0", activation="quick_gelu"),
        *rows(_DATACOMP, licence="mit"),
        *rows(_POOLS, licence="mit"),
    ),
    urls=_URLS,
    scores=_SCORES,
)
