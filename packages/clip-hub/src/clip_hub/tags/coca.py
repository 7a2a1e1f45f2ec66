"""Published weights of CoCa, which also writes captions."""

from __future__ import annotations

from clip_hub.tags.table import Row, rows, with_facts

__all__ = ["TAGS"]

# model, tag, repository, data, samples seen in 10^9, ImageNet top-1, mean of 38 sets
# fmt: off
_LAION: tuple[Row, ...] = (
    ("coca_ViT-B-32", "laion2b_s13b_b90k", "laion/CoCa-ViT-B-32-laion2B-s13B-b90k",
     "LAION-2B (English)", 13, 0.6331, 0.5533),
    ("coca_ViT-B-32", "mscoco_finetuned_laion2b_s13b_b90k", "laion/mscoco_finetuned_CoCa-ViT-B-32-laion2B-s13B-b90k",
     "LAION-2B (English), then MS COCO captions", 13, 0.0079, 0.1108),
    ("coca_ViT-L-14", "laion2b_s13b_b90k", "laion/CoCa-ViT-L-14-laion2B-s13B-b90k",
     "LAION-2B (English)", 13, 0.7561, 0.6327),
    ("coca_ViT-L-14", "mscoco_finetuned_laion2b_s13b_b90k", "laion/mscoco_finetuned_CoCa-ViT-L-14-laion2B-s13B-b90k",
     "LAION-2B (English), then MS COCO captions", 13, 0.7204, 0.6159),
)
# fmt: on

_NOTES = {
    "coca_ViT-B-32:mscoco_finetuned_laion2b_s13b_b90k": "Fine-tuned to write captions; its published accuracies "
    "are near chance, so compare images and texts with laion2b_s13b_b90k.",
}

TAGS = with_facts(rows(_LAION, licence="mit"), notes=_NOTES)
