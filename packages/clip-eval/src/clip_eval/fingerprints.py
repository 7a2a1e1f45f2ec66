"""What decides a feature, as one hash: features are found again by it, and another model's are never taken for them.

In the hash of image features are the weights of the image tower, its configuration, the precision, what is kept of
each number (float16 or float32), the version of clip-core, and what the transform does: it is shown two pictures that
are drawn here, and the hash of what it makes of them counts, whatever it was built from. So do, for texts, the
weights of the rest of the model and what the tokenizer makes of a few texts, with its vocabulary. A model whose text
tower alone was trained shares the images' features with the one it began as.

Not in it are batch size, device, threads and the version of torch: they move a feature by rounding, about 1e-6 of its
length in float32, and a run would not go on with features from another machine, which is what a store is for. They
stand beside the features instead, and in the record as "made_with" (`ImageFeatures.made_with`). On CUDA, torch's
setting for float32 products does count, because TF32 moves features by a thousand times as much.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clip_core import Bundle
from clip_core.__about__ import __version__ as core_version
from clip_core.errors import ConfigError
from clip_core.model import Clip
from clip_core.tokenizer import tokenizer_files
from clip_eval.precision import Precision

__all__ = [
    "FeatureKey",
    "check_tokenizer",
    "image_key",
    "text_key",
    "tokenizer_fingerprint",
    "transform_fingerprint",
    "weights_checksum",
]

_FORMAT = 1
"""Raised when the same settings give other features."""
_PROBES = ((131, 97), (480, 640))
_TEXTS = ("a photo of a Cat.", "  Café – naïve, 東京 🙂  &amp; more ", "UPPER, lower! (1,234)", "many words " * 300)
_SCALES = ("logit_scale", "logit_bias")


@dataclass(frozen=True, slots=True)
class FeatureKey:
    """What decides the features of one model."""

    sha256: str
    facts: dict[str, Any]
    """What the hash is of, as plain types."""


def image_key(
    bundle: Bundle, precision: Precision, *, deterministic: bool = False, dtype: str = "float32"
) -> FeatureKey:
    """Of image features; raises `ConfigError` where the transform is a random one, as for training."""
    config = bundle.config.to_json()
    names = [name for name in bundle.model.state_dict() if name.startswith("visual.")]
    facts = {
        "config": {name: config[name] for name in ("embed_dim", "image", "preprocess")},
        "transform": transform_fingerprint(bundle),
    }
    return _key("images", bundle, names, facts, precision, deterministic, dtype)


def text_key(
    bundle: Bundle, precision: Precision, *, deterministic: bool = False, dtype: str = "float32"
) -> FeatureKey:
    """Of text features; raises `ConfigError` as `check_tokenizer` does."""
    config = bundle.config.to_json()
    state = bundle.model.state_dict()
    names = [name for name in state if not name.startswith("visual.") and name not in _SCALES]
    facts = {
        "config": {name: config[name] for name in ("embed_dim", "text", "tokenizer")},
        "tokenizer": tokenizer_fingerprint(bundle),
    }
    return _key("texts", bundle, names, facts, precision, deterministic, dtype)


def transform_fingerprint(bundle: Bundle) -> str:
    """A hash of what the model's transform makes of two pictures, one larger and one smaller than most models take."""
    seen = []
    for _ in range(2):
        digest = hashlib.sha256()
        for height, width in _PROBES:
            rows, columns = np.mgrid[:height, :width]
            channels = [rows * 7 + columns * 3, rows * columns // 5 + columns, (rows - columns) ** 2 // 9]
            pixels = np.stack([channel % 256 for channel in channels], axis=-1).astype(np.uint8)
            _digest(digest, bundle.preprocess(pixels))
        seen.append(digest.hexdigest())
    if seen[0] != seen[1]:
        raise ConfigError(
            "The transform makes another tensor of the same picture each time; it is one for training. Evaluate with "
            "clip_core.preprocess.build_transform(config.preprocess), which Bundle.of takes."
        )
    return seen[0]


def tokenizer_fingerprint(bundle: Bundle) -> str:
    """A hash of what the tokenizer makes of a few texts, and of the files of its vocabulary."""
    check_tokenizer(bundle)
    digest = hashlib.sha256()
    _digest(digest, bundle.tokenizer(list(_TEXTS)))
    for path in tokenizer_files(bundle.tokenizer):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def check_tokenizer(bundle: Bundle) -> None:
    """Raises `ConfigError` where the tokenizer does not fill rows as the model's configuration says.

    Most text towers see the padding: SigLIP's features of rows padded to another length, or with another id, are
    other features, and nothing else would tell.
    """
    config, tokenizer = bundle.config.tokenizer, bundle.tokenizer
    said = getattr(tokenizer, "config", config)
    if said != config:
        raise ConfigError(
            f"The tokenizer was made for {said}, and the model's configuration says {config}. Use the tokenizer that "
            "comes with the model."
        )
    rows = tokenizer(["a"])
    expected = (1, bundle.config.text.context_length)
    if not isinstance(rows, Tensor) or tuple(rows.shape) != expected:
        found = tuple(rows.shape) if isinstance(rows, Tensor) else type(rows).__name__
        raise ConfigError(
            f"The tokenizer fills {found} for one text, and the model was made for {expected}. Padding to the longest "
            "text, or to another length, changes features; use the tokenizer that comes with the model."
        )
    padding, last = getattr(config, "pad_id", 0), int(rows[0, -1])
    length = int(tokenizer.tokenize(["a"]).lengths[0])
    if length < expected[1] and last != padding:
        raise ConfigError(
            f"The tokenizer pads rows with the id {last}, and the model's configuration says {padding}. Use the "
            "tokenizer that comes with the model."
        )


def weights_checksum(model: Clip) -> str:
    """A number that tells two sets of weights apart in a moment, for processes that should hold the same ones.

    Weights that are spread over processes are passed over: each holds another part of them.
    """
    # No hash: this one takes milliseconds on a GPU, and is made at each evaluation within a training.
    sums = [value.detach().double().sum() for value in model.parameters() if type(value.data) is Tensor]
    return hashlib.sha256(torch.stack([value.cpu() for value in sums]).numpy().tobytes()).hexdigest() if sums else ""


def _key(
    kind: str,
    bundle: Bundle,
    names: Iterable[str],
    facts: Mapping[str, Any],
    precision: Precision,
    deterministic: bool,
    dtype: str,
) -> FeatureKey:
    state, digest = bundle.model.state_dict(), hashlib.sha256()
    for name in sorted(names):
        digest.update(name.encode())
        _digest(digest, state[name])
    whole = {
        "format": _FORMAT,
        "kind": kind,
        "clip_core": core_version,
        "weights_sha256": digest.hexdigest(),
        "precision": precision,
        "deterministic": deterministic,
        "stored_as": dtype,
        **facts,
    }
    if bundle.model.logit_scale.device.type == "cuda":
        whole["float32_products"] = torch.get_float32_matmul_precision()
    canonical = json.dumps(whole, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return FeatureKey(hashlib.sha256(canonical.encode()).hexdigest(), whole)


def _digest(digest: Any, value: Any) -> None:
    """Add the dtype, the shape and the bytes of a tensor, or of those in a mapping."""
    if isinstance(value, Mapping):
        for name in sorted(value):
            digest.update(f"{name}\n".encode())
            _digest(digest, value[name])
        return
    digest.update(f"{value.dtype} {tuple(value.shape)}\n".encode())
    if hasattr(value, "__tensor_flatten__"):  # quantized: several tensors that look like one
        for name in value.__tensor_flatten__()[0]:
            _digest(digest, getattr(value, name))
        return
    digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
