"""Published weights of ViTamin (Chen et al. 2024). Accuracies and samples seen are those of the authors' README."""

from __future__ import annotations

from clip_hub.tags.table import Row, rows, with_facts

__all__ = ["TAGS"]

# model, tag, repository, data, samples seen in 10^9, ImageNet top-1, mean of 38 sets
# fmt: off
_VITAMIN: tuple[Row, ...] = (
    ("ViTamin-S", "datacomp1b", "jienengchen/ViTamin-S", "DataComp-1B", None, None, None),
    ("ViTamin-S-LTT", "datacomp1b", "jienengchen/ViTamin-S-LTT", "DataComp-1B", None, None, None),
    ("ViTamin-B", "datacomp1b", "jienengchen/ViTamin-B", "DataComp-1B", None, None, None),
    ("ViTamin-B-LTT", "datacomp1b", "jienengchen/ViTamin-B-LTT", "DataComp-1B", None, None, None),
    ("ViTamin-L", "datacomp1b", "jienengchen/ViTamin-L-224px", "DataComp-1B", 12.8, 0.808, 0.667),
    ("ViTamin-L-256", "datacomp1b", "jienengchen/ViTamin-L-256px", "DataComp-1B", 13.0, 0.812, 0.67),
    ("ViTamin-L-336", "datacomp1b", "jienengchen/ViTamin-L-336px", "DataComp-1B", 13.0, 0.816, 0.67),
    ("ViTamin-L-384", "datacomp1b", "jienengchen/ViTamin-L-384px", "DataComp-1B", 13.0, 0.818, 0.672),
    ("ViTamin-L2", "datacomp1b", "jienengchen/ViTamin-L2-224px", "DataComp-1B", 12.8, 0.809, 0.664),
    ("ViTamin-L2-256", "datacomp1b", "jienengchen/ViTamin-L2-256px", "DataComp-1B", 13.3, 0.815, 0.674),
    ("ViTamin-L2-336", "datacomp1b", "jienengchen/ViTamin-L2-336px", "DataComp-1B", 13.3, 0.818, 0.678),
    ("ViTamin-L2-384", "datacomp1b", "jienengchen/ViTamin-L2-384px", "DataComp-1B", 13.3, 0.821, 0.681),
    ("ViTamin-XL-256", "datacomp1b", "jienengchen/ViTamin-XL-256px", "DataComp-1B", None, None, None),
    ("ViTamin-XL-336", "datacomp1b", "jienengchen/ViTamin-XL-336px", "DataComp-1B", 41, 0.827, 0.68),
    ("ViTamin-XL-384", "datacomp1b", "jienengchen/ViTamin-XL-384px", "DataComp-1B", 41, 0.829, 0.681),
)
# fmt: on

_NOTES = {
    "ViTamin-XL-256:datacomp1b": "The README has 82.1 % after 13.3B samples and 82.3 % after 40B, not which is here.",
    "ViTamin-XL-384:datacomp1b": "The longer of two trainings; the shorter one has a repository of its own.",
}

TAGS = with_facts(
    (*rows(_VITAMIN, licence="mit", files=("pytorch_model.bin",), measured_by="README of Beckschen/ViTamin"),),
    notes=_NOTES,
)
