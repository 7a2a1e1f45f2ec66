"""One way through a tower: batches of images or texts become normalised float32 features on the CPU.

Pixels and tokens are made in threads, a few batches ahead of the model. What is not here: which batches there are and
who encodes them (`spread`), and where features are kept (`store`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from clip_core import Bundle
from clip_core.errors import ImageError
from clip_core.preprocess_naflex import stack_patches
from clip_eval.ahead import run_ahead
from clip_eval.features import check_finite
from clip_eval.precision import Precision, compute_context
from clip_eval.reading import read_pixels
from clip_eval.spread import NAME, Part
from clip_eval.wds import Sample, image_name

__all__ = ["Clock", "Computing", "encode_images", "encode_texts"]

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Clock:
    """Wall-clock seconds of this process, by what it did."""

    seconds: dict[str, float] = field(default_factory=lambda: {"decode": 0.0, "encode": 0.0, "store": 0.0})

    @contextmanager
    def count(self, what: str) -> Iterator[None]:
        """Add the time until the block is left."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[what] += time.perf_counter() - start


@dataclass(frozen=True, slots=True, kw_only=True)
class Computing:
    """How the towers are run."""

    precision: Precision
    deterministic: bool = False
    """Row by row."""
    workers: int = 1
    """Threads; 0 is none."""

    @torch.no_grad()  # not inference_mode: what a model in training keeps of such a pass could not be trained with
    def run(self, tower: Callable[..., Tensor], inputs: Any, device: torch.device) -> Tensor:
        """`tower`, which is on `device`, of `inputs`: float32 rows of length 1, on the CPU."""
        with compute_context(self.precision, device):
            features = tower(inputs, deterministic=self.deterministic)
        return F.normalize(features.float(), dim=-1).cpu()


def encode_images(
    bundle: Bundle,
    samples: Sequence[Sample],
    batches: Sequence[range],
    how: Computing,
    clock: Clock,
    show: Callable[[int], None],
) -> Iterator[Part]:
    """The images of each batch. Those that do not decode are logged and left out.

    `show` is told how many images are done. Raises `DataError` where a shard cannot be read, and for features that are
    not finite, naming the sample.
    """
    device = bundle.model.logit_scale.device
    decoded = run_ahead(
        lambda sample: read_pixels(bundle, sample),
        ([samples[place] for place in batch] for batch in batches),
        how.workers,
    )
    for batch in batches:
        with clock.count("decode"):
            loaded = next(decoded)
        good, left_out = [], {}
        for place, item in zip(batch, loaded, strict=True):
            if isinstance(item, ImageError):
                _log.warning("left out: %s", item)
                left_out[place] = str(item).replace(image_name(samples[place]), NAME)
            else:
                good.append((place, item))
        features = torch.empty(0, bundle.config.embed_dim)
        if good:
            with clock.count("encode"):
                features = how.run(bundle.model.encode_image, _stacked([item for _, item in good], device), device)
            check_finite(features, [image_name(samples[place]) for place, _ in good], "image")
        show(len(batch))
        yield Part(features, torch.tensor([place for place, _ in good], dtype=torch.int64), left_out)


def _stacked(images: Sequence[Any], device: torch.device) -> Any:
    """What a transform gave for each image, as a batch on `device`: a tensor, or the patches of a NaFlex model."""
    if isinstance(images[0], Mapping):
        return {name: value.to(device) for name, value in stack_patches(images).items()}
    return torch.stack(list(images)).to(device)


def encode_texts(
    bundle: Bundle,
    texts: Sequence[str],
    batches: Sequence[range],
    how: Computing,
    clock: Clock,
    show: Callable[[int], None],
) -> Iterator[Part]:
    """The texts of each batch, as `encode_images` does images."""
    # The ids stay on the CPU: there the model sees which beginnings texts share and where they end.
    device = bundle.model.logit_scale.device
    tokenized = run_ahead(
        lambda batch: bundle.tokenizer([texts[place] for place in batch]), ([batch] for batch in batches), how.workers
    )

    for batch in batches:
        with clock.count("decode"):
            (tokens,) = next(tokenized)
        with clock.count("encode"):
            features = how.run(bundle.model.encode_text, tokens, device)
        check_finite(features, [texts[place] for place in batch], "text")
        show(len(batch))
        yield Part(features, torch.tensor(batch), {})
