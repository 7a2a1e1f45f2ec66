"""Published weights of EVA-CLIP (Sun et al. 2023)."""

from __future__ import annotations

from clip_hub.tags.table import Row, rows

__all__ = ["TAGS"]

# model, tag, repository, data, samples seen in 10^9, ImageNet top-1, mean of 38 sets
# fmt: off
_EVA: tuple[Row, ...] = (
    ("EVA01-g-14", "laion400m_s11b_b41k", "timm/eva_giant_patch14_clip_224.laion400m_s11b_b41k",
     "LAION-400M", 11, 0.7852, 0.6358),
    ("EVA01-g-14-plus", "merged2b_s11b_b114k", "timm/eva_giant_patch14_plus_clip_224.merged2b_s11b_b114k",
     "Merged-2B: LAION-2B and COYO-700M", 11, 0.7933, 0.6624),
    ("EVA02-B-16", "merged2b_s8b_b131k", "timm/eva02_base_patch16_clip_224.merged2b_s8b_b131k",
     "Merged-2B: LAION-2B and COYO-700M", 8, 0.7472, 0.589),
    ("EVA02-L-14", "merged2b_s4b_b131k", "timm/eva02_large_patch14_clip_224.merged2b_s4b_b131k",
     "Merged-2B: LAION-2B and COYO-700M", 4, 0.7977, 0.6488),
    ("EVA02-L-14-336", "merged2b_s6b_b61k", "timm/eva02_large_patch14_clip_336.merged2b_s6b_b61k",
     "Merged-2B: LAION-2B and COYO-700M", 6, 0.8039, 0.6583),
    ("EVA02-E-14", "laion2b_s4b_b115k", "timm/eva02_enormous_patch14_clip_224.laion2b_s4b_b115k",
     "LAION-2B (English)", 4, 0.8196, 0.669),
    ("EVA02-E-14-plus", "laion2b_s9b_b144k", "timm/eva02_enormous_patch14_plus_clip_224.laion2b_s9b_b144k",
     "LAION-2B (English)", 9, 0.8201, 0.693),
)
# fmt: on

TAGS = rows(_EVA, licence="mit")
