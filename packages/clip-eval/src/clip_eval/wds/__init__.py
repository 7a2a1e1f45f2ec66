"""Benchmark sets in webdataset shards, read from disk: the samples of a tar, and the folder layout of `wds_*` sets."""

from __future__ import annotations

from clip_eval.wds.dataset import KINDS, Association, Kind, WdsDataset
from clip_eval.wds.manifest import Manifest, ShardFacts, read_manifest, shard_sha256
from clip_eval.wds.opening import check_size, open_dataset
from clip_eval.wds.tars import (
    IMAGE_EXTENSIONS,
    Sample,
    image_extension,
    image_name,
    index_shard,
    read_each,
    read_image_bytes,
    read_member,
)
from clip_eval.wds.text_files import check_class_names

__all__ = [
    "IMAGE_EXTENSIONS",
    "KINDS",
    "Association",
    "Kind",
    "Manifest",
    "Sample",
    "ShardFacts",
    "WdsDataset",
    "check_class_names",
    "check_size",
    "image_extension",
    "image_name",
    "index_shard",
    "open_dataset",
    "read_each",
    "read_image_bytes",
    "read_manifest",
    "read_member",
    "shard_sha256",
]
