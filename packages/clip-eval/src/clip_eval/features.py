"""Encodes a data set once: images and texts become normalised float32 features on the CPU.

Images are read and decoded in threads, a few batches ahead of the model, so memory does not grow with the data set
beyond the features themselves. A picture that does not decode is left out, counted and named; a feature that is not a
number is an error, because it would rank like one. What is not here: storing features between runs.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from clip_core import Bundle
from clip_core.errors import ConfigError, DataError, ImageError
from clip_core.images import open_image
from clip_core.zero_shot import encode_texts as encode_unchecked
from clip_eval.wds import Sample, image_name, read_image_bytes

__all__ = ["Excluded", "ImageFeatures", "check_finite", "count_truncated", "encode_images", "encode_texts"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Excluded:
    """A sample that took no part, and why."""

    index: int
    """Its place in the data set."""
    name: str
    """`shard.tar:key.png`."""
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFeatures:
    """Features of the samples that could be decoded, in the order of the data set."""

    features: Tensor
    """float32 (N, D), rows of length 1, on the CPU."""
    kept: Tensor
    """int64 (N,): the place of each row's sample in the data set."""
    excluded: tuple[Excluded, ...]
    seconds_decode: float
    """Wall-clock seconds in which the model waited for images."""
    seconds_encode: float
    """Wall-clock seconds in the model."""


def encode_images(
    bundle: Bundle,
    samples: Sequence[Sample],
    *,
    batch_size: int = 64,
    workers: int = 1,
    progress: bool = False,
) -> ImageFeatures:
    """Features of all samples' images on the device that holds the model.

    workers: threads that read and decode; 0 does it between the batches. Raises `DataError` when a shard cannot be
    read, when no image decodes at all, and when a feature is not finite, naming the sample.
    """
    from tqdm.auto import tqdm

    if batch_size < 1 or workers < 0:
        raise ConfigError(f"{batch_size=}, {workers=}: a batch holds 1 or more images, workers are 0 or more.")
    device = bundle.model.logit_scale.device
    features: list[Tensor] = []
    kept: list[int] = []
    excluded: list[Excluded] = []
    waited = encoded = 0.0
    start = time.perf_counter()
    with tqdm(total=len(samples), desc="images", unit=" images", disable=not progress) as bar:
        for first, loaded in _load(bundle, samples, batch_size, workers):
            good: list[tuple[int, Tensor]] = []
            for index, item in enumerate(loaded, first):
                if isinstance(item, ImageError):
                    excluded.append(Excluded(index, image_name(samples[index]), str(item)))
                    _log.warning("left out: %s", item)
                else:
                    good.append((index, item))
            waited += time.perf_counter() - start
            start = time.perf_counter()
            if good:
                indices = [index for index, _ in good]
                batch = _encode(bundle, torch.stack([image for _, image in good]).to(device))
                check_finite(batch, [f"{samples[index].shard}:{samples[index].key}" for index in indices], "image")
                features.append(batch)
                kept.extend(indices)
            bar.update(len(loaded))
            encoded += time.perf_counter() - start
            start = time.perf_counter()
    if not features:
        first_reason = f" The first one: {excluded[0].reason}" if excluded else ""
        raise DataError(f"None of the {len(samples)} images can be decoded.{first_reason}")
    return ImageFeatures(
        features=torch.cat(features),
        kept=torch.tensor(kept),
        excluded=tuple(excluded),
        seconds_decode=waited,
        seconds_encode=encoded,
    )


def encode_texts(bundle: Bundle, texts: Sequence[str], *, batch_size: int = 256, progress: bool = False) -> Tensor:
    """Features of texts, float32 (N, D), rows of length 1, on the CPU; raises `DataError` as `check_finite` does."""
    features = encode_unchecked(bundle.model, bundle.tokenizer, texts, batch_size=batch_size, progress=progress)
    check_finite(features, texts, "text")
    return features


def count_truncated(bundle: Bundle, texts: Sequence[str]) -> int:
    """How many of the texts are longer than the model's context, so that it sees their beginning only."""
    count = bundle.tokenizer.tokenize(texts).truncated
    if count:
        _log.warning(
            "%d of %d texts are cut to the context length %d", count, len(texts), bundle.tokenizer.context_length
        )
    return count


def check_finite(features: Tensor, names: Sequence[str], kind: str) -> None:
    """Raises `DataError`, naming the first bad row, when `features` (N, D) hold NaN or infinity."""
    bad = (~features.isfinite().all(dim=1)).nonzero().flatten()
    if len(bad):
        raise DataError(
            f"The model gives {len(bad)} of {len(names)} {kind}s in this batch features that are not finite; first "
            f"{names[int(bad[0])]!r}. Scores of such features mean nothing. Check the weights, or use fp32."
        )


@torch.inference_mode()
def _encode(bundle: Bundle, images: Tensor) -> Tensor:
    # Normalised after the step to float32: the weights' own dtype may be a short one.
    return F.normalize(bundle.model.encode_image(images).float(), dim=-1).cpu()


def _load(
    bundle: Bundle, samples: Sequence[Sample], batch_size: int, workers: int
) -> Iterator[tuple[int, list[Tensor | ImageError]]]:
    """Batches of decoded images with the place of their first; an image that does not decode is its error."""

    def decode(sample: Sample) -> Tensor | ImageError:
        data, name = read_image_bytes(sample)
        try:
            return bundle.preprocess(open_image(data, name=name))
        except ImageError as error:
            return error

    starts = range(0, len(samples), batch_size)
    if workers == 0:
        for start in starts:
            yield start, [decode(sample) for sample in samples[start : start + batch_size]]
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        ahead: deque[tuple[int, list[Future[Tensor | ImageError]]]] = deque()
        try:
            for start in starts:
                ahead.append((start, [pool.submit(decode, sample) for sample in samples[start : start + batch_size]]))
                if len(ahead) > 2:
                    first, batch = ahead.popleft()
                    yield first, [future.result() for future in batch]
            while ahead:
                first, batch = ahead.popleft()
                yield first, [future.result() for future in batch]
        finally:
            pool.shutdown(cancel_futures=True)
