"""What a record states beside its numbers: which model, which data, which machine and which versions.

Everything here is plain types for strict JSON. What is not here: the numbers, files.
"""

from __future__ import annotations

import hashlib
import json
import platform
import shlex
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from clip_core import Bundle
from clip_core.errors import DataError
from clip_core.tokenizer.missing import MissingTokenizer
from clip_core.zero_shot import fill_template
from clip_eval.features import ImageFeatures
from clip_eval.languages import captions_in
from clip_eval.places.address import without_secrets
from clip_eval.wds import WdsDataset, shard_sha256

__all__ = [
    "contents_sha256",
    "dataset_facts",
    "json_sha256",
    "model_facts",
    "prompt_facts",
    "run_facts",
    "shards_sha256",
    "split_facts",
]

_PACKAGES = ("clip-core", "clip-hub", "clip-eval", "torch", "torchvision", "numpy", "pillow")
_PROBES = (
    "a photo of a cat.",
    "A PHOTO OF A CAT!",
    "a  photo\tof a caf\u00e9, na\u00efve & \u6771\u4eac ",
    "",
    "a very long caption, " * 60,
)
"""Texts on which tokenizers differ: case, punctuation, blanks, accents, another script, padding, cutting."""


def model_facts(bundle: Bundle) -> dict[str, Any]:
    """What identifies a model: hashes of its weights, configuration, preprocessing and tokenizer, and its size."""
    digest = hashlib.sha256()
    state = bundle.model.state_dict()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy())
    config = bundle.config.to_json()
    return {
        "weights_sha256": digest.hexdigest(),
        "config_sha256": json_sha256(config),
        "preprocess_sha256": json_sha256(config["preprocess"]),
        "tokenizer_sha256": _tokenizer_sha256(bundle),
        "parameters": sum(parameter.numel() for parameter in bundle.model.parameters()),
        "logit_scale": float(bundle.model.logit_scale.detach().exp()),
        "config": config,
    }


def json_sha256(data: Any) -> str:
    """The hash of plain types, whatever the order of their keys."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _tokenizer_sha256(bundle: Bundle) -> str | None:
    """The hash of what the tokenizer makes of a few texts; None where its vocabulary is missing."""
    if isinstance(bundle.tokenizer, MissingTokenizer):
        return None
    return json_sha256(bundle.tokenizer.tokenize(_PROBES).tokens.tolist())


def dataset_facts(dataset: WdsDataset, images: ImageFeatures, *, language: str | None = None) -> dict[str, Any]:
    """What was evaluated: counts, what was left out and why, hashes, what the data set says of itself.

    language: of the captions, where others than those in the shards were used.

    Raises:
        DataError: its `about.json` is damaged.
    """
    return {
        "name": dataset.name,
        "kind": dataset.kind,
        "folder": str(dataset.folder),
        **split_facts(dataset, images, language=language),
        "about": _read_about(dataset.folder / "about.json"),
    }


def split_facts(dataset: WdsDataset, images: ImageFeatures, *, language: str | None = None) -> dict[str, Any]:
    """What identifies one split: counts, what was left out and why, the hashes of the shards and of the contents."""
    return {
        "split": dataset.split,
        "samples": len(dataset.samples),
        "evaluated": len(images.kept),
        "excluded": {
            "count": len(images.excluded),
            "sha256": json_sha256([entry.index for entry in images.excluded]),
            "first": [{"name": entry.name, "reason": entry.reason} for entry in images.excluded[:20]],
        },
        "shards_sha256": shards_sha256(dataset),
        "contents_sha256": contents_sha256(dataset, language),
    }


def contents_sha256(dataset: WdsDataset, language: str | None = None) -> str:
    """The hash of what is asked about the images: names, labels, captions in `language`, riddles.

    Raises:
        DataError: there are no captions in that language.
    """
    captions = captions_in(dataset, language) if dataset.kind == "retrieval" else dataset.captions
    return json_sha256(
        {
            "classnames": dataset.classnames,
            "labels": dataset.labels,
            "present": dataset.present,
            "captions": captions,
            "right_captions": dataset.right_captions,
            "examples": dataset.examples,
            "categories": dataset.categories,
            "associations": [(each.cue, each.candidates, each.right) for each in dataset.associations],
        }
    )


def shards_sha256(dataset: WdsDataset) -> str:
    """One hash of all shards that samples of `dataset` lie in; a process reads each of them once for it."""
    digest = hashlib.sha256()
    for shard in dict.fromkeys(sample.shard for sample in dataset.samples):
        digest.update(bytes.fromhex(shard_sha256(shard)))
    return digest.hexdigest()


def _read_about(path: Path) -> dict[str, Any] | None:
    """What a data set says about itself: texts under `title`, `description`, `source`, `licence`, a list of `notes`."""
    if not path.exists():
        return None
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON ({error}).") from error
    notes = about.get("notes", []) if isinstance(about, dict) else None
    if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
        raise DataError(f"{path}: must be an object of texts, with a list of texts under 'notes'.")
    return dict(about)


def run_facts(
    bundle: Bundle,
    *,
    processes: int = 1,
    store: Mapping[str, int] | None = None,
    command: str | None = None,
) -> dict[str, Any]:
    """Where and with what it ran: precision, device, number of processes, hits of the feature store, versions.

    store: such as {"hits": 3, "misses": 1}; None without a store. command: the command line, by default this process's
    without the secrets of its URLs.
    """
    device = bundle.model.logit_scale.device
    return {
        "precision": {
            "model": str(bundle.model.dtype).removeprefix("torch."),
            "features": "float32",
            "scores": "exact in float64, features on a grid of 2**-26",
        },
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "processes": processes,
        "store": None if store is None else dict(store),
        "command": shlex.join(map(without_secrets, sys.argv)) if command is None else command,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
    }


def prompt_facts(details: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """The identity of the prompts of a classification: a hash of every class's name and prompts.

    details, settings: of a record. None for a task without classes. Results of other prompts are another measurement.
    """
    classes = details.get("classes")
    if not isinstance(classes, list):
        return None
    names = [str(entry["name"]) for entry in classes]
    templates = details.get("templates")
    stated = details.get("prompts")
    if isinstance(stated, dict) and "sha256" in stated:
        digest = str(stated["sha256"])
    else:
        texts = [[fill_template(template, name) for template in templates or ()] for name in names]
        pairs = json.dumps(list(zip(names, texts, strict=True)), ensure_ascii=False, separators=(",", ":"))
        digest = hashlib.sha256(pairs.encode()).hexdigest()
    return {
        "id": digest[:16],
        "language": settings.get("language"),
        "classes": len(names),
        "templates": None if templates is None else len(templates),
    }
