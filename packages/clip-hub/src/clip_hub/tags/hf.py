"""Published weights with a text tower of transformers: RoBERTa, XLM-RoBERTa, and NLLB's encoder."""

from __future__ import annotations

from typing import Any

from clip_core.presets.parts import INCEPTION_MEAN, INCEPTION_STD
from clip_hub.tag import Score
from clip_hub.tags.table import PAGE, Row, card, imagenet, rows, with_facts

__all__ = ["TAGS"]

# model, tag, repository, data, samples seen in 10^9, ImageNet top-1, mean of 38 sets
# fmt: off
_ROBERTA: tuple[Row, ...] = (
    ("roberta-ViT-B-32", "laion2b_s12b_b32k", "laion/CLIP-ViT-B-32-roberta-base-laion2B-s12B-b32k",
     "LAION-2B (English)", 12, 0.6171, 0.5411),
)

_XLM_ROBERTA: tuple[Row, ...] = (
    ("xlm-roberta-base-ViT-B-32", "laion5b_s13b_b90k", "laion/CLIP-ViT-B-32-xlm-roberta-base-laion5B-s13B-b90k",
     "LAION-5B (multilingual)", 13, 0.6236, 0.5643),
    ("xlm-roberta-large-ViT-H-14", "frozen_laion5b_s13b_b90k",
     "laion/CLIP-ViT-H-14-frozen-xlm-roberta-large-laion5B-s13B-b90k", "LAION-5B (multilingual)", 13, 0.7695, 0.6515),
)

_NLLB: tuple[Row, ...] = (
    ("nllb-clip-base", "v1", "visheratin/nllb-clip-base-oc",
     "LAION-COCO, captions in 201 languages", None, 0.2432, 0.3351),
    ("nllb-clip-large", "v1", "visheratin/nllb-clip-large-oc",
     "LAION-COCO, captions in 201 languages", None, 0.3672, 0.4227),
)

_NLLB_SIGLIP: tuple[Row, ...] = (
    ("nllb-clip-base-siglip", "mrl", "visheratin/nllb-siglip-mrl-base", None, None, None, None),
    ("nllb-clip-base-siglip", "v1", "visheratin/nllb-clip-base-siglip",
     "LAION-COCO, captions in 201 languages", None, 0.3909, 0.4451),
    ("nllb-clip-large-siglip", "mrl", "visheratin/nllb-siglip-mrl-large", None, None, None, None),
    ("nllb-clip-large-siglip", "v1", "visheratin/nllb-clip-large-siglip", None, None, 0.5175, 0.5184),
)
# fmt: on

_ROBERTA_CARD = card("laion/CLIP-ViT-B-32-roberta-base-laion2B-s12B-b32k")
_XLM_CARD = card("laion/CLIP-ViT-H-14-frozen-xlm-roberta-large-laion5B-s13B-b90k")

_SIGLIP: dict[str, Any] = {
    "licence": "cc-by-nc-4.0",
    "activation": None,
    "mean": INCEPTION_MEAN,
    "std": INCEPTION_STD,
    "resize_mode": "squash",
}

_SCORES = {
    "roberta-ViT-B-32:laion2b_s12b_b32k": [
        imagenet(0.617, _ROBERTA_CARD),
        # The card does not name the metric; these are its figures in OpenCLIP's table of retrieval.
        Score(dataset="MS COCO", metric="image retrieval recall@5", value=0.63, source=_ROBERTA_CARD),
        Score(dataset="Flickr30k", metric="image retrieval recall@5", value=0.867, source=_ROBERTA_CARD),
    ],
    "xlm-roberta-base-ViT-B-32:laion5b_s13b_b90k": [
        imagenet(0.6233, PAGE),
        imagenet(0.43, PAGE, "ImageNet-1k in Italian"),
        imagenet(0.37, PAGE, "ImageNet-1k in Japanese"),
    ],
    "xlm-roberta-large-ViT-H-14:frozen_laion5b_s13b_b90k": [
        imagenet(0.77, _XLM_CARD),
        imagenet(0.56, _XLM_CARD, "ImageNet-1k in Italian"),
        imagenet(0.53, _XLM_CARD, "ImageNet-1k in Japanese"),
        imagenet(0.557, _XLM_CARD, "ImageNet-1k in Chinese"),
    ],
}

_NOTES = {
    "xlm-roberta-large-ViT-H-14:frozen_laion5b_s13b_b90k": "The image tower is that of ViT-H-14:laion2b_s32b_b79k, "
    "which was kept as it was.",
}

TAGS = with_facts(
    (
        *rows(_ROBERTA, licence="mit", activation="quick_gelu"),
        *rows(_XLM_ROBERTA, licence="mit"),
        *rows(_NLLB, licence="cc-by-nc-4.0"),
        *rows(_NLLB_SIGLIP, **_SIGLIP),
    ),
    scores=_SCORES,
    notes=_NOTES,
)
