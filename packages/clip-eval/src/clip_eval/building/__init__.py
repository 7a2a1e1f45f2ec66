"""Writes data sets into the `wds_*` layout, from image folders, tables, libraries and annotation files.

    write_dataset("data/animals", image_folder("pictures"), split="test")

What is not here: reading them back (`clip_eval.wds`), the data sets that come with the package (`clip_eval.datasets`).
"""

from __future__ import annotations

from clip_eval.building.benchmarks import sugar_crepe, winogavil, winoground
from clip_eval.building.folders import image_folder
from clip_eval.building.libraries import huggingface_dataset, torchvision_dataset
from clip_eval.building.pictures import Example
from clip_eval.building.source import Source
from clip_eval.building.tables import table
from clip_eval.building.writing import write_dataset

__all__ = [
    "Example",
    "Source",
    "huggingface_dataset",
    "image_folder",
    "sugar_crepe",
    "table",
    "torchvision_dataset",
    "winogavil",
    "winoground",
    "write_dataset",
]
