"""Published weights with a ConvNeXt for images. `augreg` is more augmentation, `ft` a fine-tuning, `soup` a mean."""

from __future__ import annotations

from clip_hub.tags.table import Row, card, imagenet, rows, with_facts

__all__ = ["TAGS"]

# model, tag, repository, data, samples seen in 10^9, ImageNet top-1, mean of 38 sets
# fmt: off
_LAION: tuple[Row, ...] = (
    ("convnext_base", "laion400m_s13b_b51k", "laion/CLIP-convnext_base-laion400M-s13B-b51K",
     "LAION-400M", 13, 0.6627, 0.5576),
    ("convnext_base_w", "laion2b_s13b_b82k", "laion/CLIP-convnext_base_w-laion2B-s13B-b82K",
     "LAION-2B (English)", 13, 0.7078, 0.5761),
    ("convnext_base_w", "laion2b_s13b_b82k_augreg", "laion/CLIP-convnext_base_w-laion2B-s13B-b82K-augreg",
     "LAION-2B (English)", 13, 0.7147, 0.5835),
    ("convnext_base_w", "laion_aesthetic_s13b_b82k", "laion/CLIP-convnext_base_w-laion_aesthetic-s13B-b82K",
     "LAION-Aesthetic, 900M pairs", 13, 0.7099, 0.5766),
    ("convnext_base_w_320", "laion_aesthetic_s13b_b82k", "laion/CLIP-convnext_base_w_320-laion_aesthetic-s13B-b82K",
     "LAION-Aesthetic, 900M pairs", 13, 0.7167, 0.5665),
    ("convnext_base_w_320", "laion_aesthetic_s13b_b82k_augreg",
     "laion/CLIP-convnext_base_w_320-laion_aesthetic-s13B-b82K-augreg",
     "LAION-Aesthetic, 900M pairs", 13, 0.7128, 0.5869),
    ("convnext_large_d", "laion2b_s26b_b102k_augreg", "laion/CLIP-convnext_large_d.laion2B-s26B-b102K-augreg",
     "LAION-2B (English)", 26, 0.7591, 0.6294),
    ("convnext_large_d_320", "laion2b_s29b_b131k_ft", "laion/CLIP-convnext_large_d_320.laion2B-s29B-b131K-ft",
     "LAION-2B (English)", 29, 0.766, 0.6345),
    ("convnext_large_d_320", "laion2b_s29b_b131k_ft_soup", "laion/CLIP-convnext_large_d_320.laion2B-s29B-b131K-ft-soup",
     "LAION-2B (English)", 29, 0.7685, 0.6387),
    ("convnext_xxlarge", "laion2b_s34b_b82k_augreg", "laion/CLIP-convnext_xxlarge-laion2B-s34B-b82K-augreg",
     "LAION-2B (English)", 34, 0.7907, 0.6479),
    ("convnext_xxlarge", "laion2b_s34b_b82k_augreg_rewind",
     "laion/CLIP-convnext_xxlarge-laion2B-s34B-b82K-augreg-rewind", "LAION-2B (English)", 34, 0.7931, 0.6521),
    ("convnext_xxlarge", "laion2b_s34b_b82k_augreg_soup", "laion/CLIP-convnext_xxlarge-laion2B-s34B-b82K-augreg-soup",
     "LAION-2B (English)", 34, 0.7947, 0.653),
)
# fmt: on

_CARD = card("laion/CLIP-convnext_large_d_320.laion2B-s29B-b131K-ft-soup")

_SCORES = {
    "convnext_large_d:laion2b_s26b_b102k_augreg": [imagenet(0.759, _CARD)],
    "convnext_large_d_320:laion2b_s29b_b131k_ft": [imagenet(0.766, _CARD)],
    "convnext_large_d_320:laion2b_s29b_b131k_ft_soup": [imagenet(0.769, _CARD)],
}

_NOTES = {
    "convnext_large_d_320:laion2b_s29b_b131k_ft_soup": "The mean of the weights of three fine-tunings at 320 pixels.",
}

TAGS = with_facts(
    (*rows(_LAION, licence="mit"),),
    scores=_SCORES,
    notes=_NOTES,
)
