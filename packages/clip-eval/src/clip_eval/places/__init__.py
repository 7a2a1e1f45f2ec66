"""Where a data set lies: a folder, a repository of the Hub, or any URL; and a folder of it on this machine.

    folder = fetch_dataset("clip-benchmark/wds_vtab-cifar10")
    dataset = open_dataset(folder, "test")

What arrives is kept as it is. What is not here: data sets by their name in the catalogue, reading the folder.
"""

from __future__ import annotations

from clip_eval.places.facts import DatasetFacts
from clip_eval.places.fetching import describe_dataset, fetch_dataset, origin_of

__all__ = ["DatasetFacts", "describe_dataset", "fetch_dataset", "origin_of"]
