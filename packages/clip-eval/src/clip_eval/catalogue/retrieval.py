"""Captions that find images and images that find captions, in English."""

from __future__ import annotations

from functools import partial

from clip_eval.catalogue.entry import Entry

__all__ = ["ENTRIES"]

_retrieval = partial(Entry, kind="retrieval", type="retrieval", main_metric="mean_recall@1", on_hub=True)

ENTRIES: tuple[Entry, ...] = (
    _retrieval(
        name="mscoco_captions",
        title="MSCOCO",
        test=5_000,
        captions=25_010,
        chance=1 / 5_000,
        aliases=("coco", "mscoco"),
        datacomp="retrieval/mscoco_2014_5k_test_image_text_retrieval",
        source="Lin et al. 2014, Karpathy's test split of val2014; github.com/mehdidc/retrieval_annotations",
        notes=("A few images have more than five captions. The references of captioning are the same captions.",),
    ),
    _retrieval(
        name="flickr30k",
        title="Flickr",
        test=1_000,
        captions=5_000,
        chance=1 / 1_000,
        aliases=("Flickr30k",),
        datacomp="retrieval/flickr_1k_test_image_text_retrieval",
        source="Young et al. 2014, Karpathy's test split; github.com/mehdidc/retrieval_annotations",
        languages=("en", "zh"),
    ),
    _retrieval(
        name="flickr8k",
        title="Flickr8k",
        test=1_000,
        captions=5_000,
        chance=1 / 1_000,
        source="Hodosh et al. 2013, Karpathy's test split; github.com/mehdidc/retrieval_annotations",
        languages=("en", "zh"),
        notes=("Some published rows of CLIP_benchmark were computed on the wrong split (its issue 48).",),
    ),
)
