"""Published weights of ViT-B/32.

Scores: OpenCLIP's table of zero-shot results on DataComp's 38 sets, measured with the activation stated here. Data and
samples seen are what the tag and its paper say (Cherti et al. 2022; Gadre et al. 2023; Xu et al. 2023).
"""

from __future__ import annotations

from clip_core.config import Activation
from clip_hub.registry import Tag

__all__ = ["TAGS"]

_Row = tuple[str, str, str, Activation, str, int | None, str | None, float | None, float | None]

# model, tag, repository, activation, data, samples seen, licence, ImageNet top-1, mean of 38
# fmt: off
_ROWS: tuple[_Row, ...] = (
    ("ViT-B-32", "openai", "timm/vit_base_patch32_clip_224.openai",
     "quick_gelu", "WebImageText, 400M pairs (OpenAI, not published)", None, None, 0.6332, 0.5245),
    ("ViT-B-32", "laion400m_e31", "timm/vit_base_patch32_clip_224.laion400m_e31",
     "quick_gelu", "LAION-400M", None, None, 0.6294, 0.5263),
    ("ViT-B-32", "laion400m_e32", "timm/vit_base_patch32_clip_224.laion400m_e32",
     "quick_gelu", "LAION-400M", None, None, 0.6293, 0.5272),
    ("ViT-B-32", "laion2b_e16", "timm/vit_base_patch32_clip_224.laion2b_e16",
     "gelu", "LAION-2B (English)", None, None, 0.6565, 0.5483),
    ("ViT-B-32", "laion2b_s34b_b79k", "laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
     "gelu", "LAION-2B (English)", 34_000_000_000, "mit", 0.6656, 0.5694),
    ("ViT-B-32", "metaclip_400m", "timm/vit_base_patch32_clip_224.metaclip_400m",
     "quick_gelu", "MetaCLIP, 400M pairs of CommonCrawl", None, None, 0.6558, 0.5387),
    ("ViT-B-32", "metaclip_fullcc", "timm/vit_base_patch32_clip_224.metaclip_2pt5b",
     "quick_gelu", "MetaCLIP, 2.5B pairs of CommonCrawl", None, None, 0.6766, 0.5577),
    ("ViT-B-32", "datacomp_xl_s13b_b90k", "laion/CLIP-ViT-B-32-DataComp.XL-s13B-b90K",
     "gelu", "DataComp-1B", 12_800_000_000, None, 0.6917, 0.5795),
    ("ViT-B-32", "commonpool_m_basic_s128m_b4k", "laion/CLIP-ViT-B-32-CommonPool.M.basic-s128M-b4K",
     "gelu", "CommonPool medium, filtered by basic rules", 128_000_000, None, 0.2255, 0.2849),
    ("ViT-B-32", "commonpool_m_clip_s128m_b4k", "laion/CLIP-ViT-B-32-CommonPool.M.clip-s128M-b4K",
     "gelu", "CommonPool medium, filtered by CLIP score", 128_000_000, None, 0.2725, 0.3278),
    ("ViT-B-32", "commonpool_m_image_s128m_b4k", "laion/CLIP-ViT-B-32-CommonPool.M.image-s128M-b4K",
     "gelu", "CommonPool medium, image-based filter", 128_000_000, None, 0.2678, 0.3118),
    ("ViT-B-32", "commonpool_m_laion_s128m_b4k", "laion/CLIP-ViT-B-32-CommonPool.M.laion-s128M-b4K",
     "gelu", "CommonPool medium, filtered by LAION rules", 128_000_000, None, 0.2304, 0.2919),
    ("ViT-B-32", "commonpool_m_s128m_b4k", "laion/CLIP-ViT-B-32-CommonPool.M-s128M-b4K",
     "gelu", "CommonPool medium, unfiltered", 128_000_000, None, 0.1755, 0.258),
    ("ViT-B-32", "commonpool_m_text_s128m_b4k", "laion/CLIP-ViT-B-32-CommonPool.M.text-s128M-b4K",
     "gelu", "CommonPool medium, text-based filter", 128_000_000, None, 0.2548, 0.3066),
    ("ViT-B-32", "datacomp_m_s128m_b4k", "laion/CLIP-ViT-B-32-DataComp.M-s128M-b4K",
     "gelu", "DataComp medium, best baseline filter", 128_000_000, None, 0.2972, 0.3281),
    ("ViT-B-32", "commonpool_s_basic_s13m_b4k", "laion/CLIP-ViT-B-32-CommonPool.S.basic-s13M-b4K",
     "gelu", "CommonPool small, filtered by basic rules", 12_800_000, None, 0.0377, 0.1423),
    ("ViT-B-32", "commonpool_s_clip_s13m_b4k", "laion/CLIP-ViT-B-32-CommonPool.S.clip-s13M-b4K",
     "gelu", "CommonPool small, filtered by CLIP score", 12_800_000, None, 0.0505, 0.1731),
    ("ViT-B-32", "commonpool_s_image_s13m_b4k", "laion/CLIP-ViT-B-32-CommonPool.S.image-s13M-b4K",
     "gelu", "CommonPool small, image-based filter", 12_800_000, None, 0.0392, 0.1449),
    ("ViT-B-32", "commonpool_s_laion_s13m_b4k", "laion/CLIP-ViT-B-32-CommonPool.S.laion-s13M-b4K",
     "gelu", "CommonPool small, filtered by LAION rules", 12_800_000, None, 0.0305, 0.1332),
    ("ViT-B-32", "commonpool_s_s13m_b4k", "laion/CLIP-ViT-B-32-CommonPool.S-s13M-b4K",
     "gelu", "CommonPool small, unfiltered", 12_800_000, None, 0.027, 0.142),
    ("ViT-B-32", "commonpool_s_text_s13m_b4k", "laion/CLIP-ViT-B-32-CommonPool.S.text-s13M-b4K",
     "gelu", "CommonPool small, text-based filter", 12_800_000, None, 0.046, 0.1573),
    ("ViT-B-32", "datacomp_s_s13m_b4k", "laion/CLIP-ViT-B-32-DataComp.S-s13M-b4K",
     "gelu", "DataComp small, best baseline filter", 12_800_000, None, 0.0392, 0.1449),
    ("ViT-B-32-256", "datacomp_s34b_b86k", "laion/CLIP-ViT-B-32-256x256-DataComp-s34B-b86K",
     "gelu", "DataComp-1B", 34_000_000_000, None, 0.7281, 0.6087),
)
# fmt: on

TAGS = tuple(
    Tag(
        model=model,
        tag=tag,
        repo=repo,
        activation=activation,
        data=data,
        samples_seen=samples_seen,
        licence=licence,
        imagenet=imagenet,
        average_38=average_38,
    )
    for model, tag, repo, activation, data, samples_seen, licence, imagenet, average_38 in _ROWS
)
