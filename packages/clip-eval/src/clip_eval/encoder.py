"""The model as the tasks see it: images and texts go in, normalised float32 features on the CPU come out.

Every task asks the same encoder, so whatever saves work is here and nowhere else: a store of features, several
processes, decoding ahead of the model. Memory holds the features and a few batches. What is not here: data sets,
scores, and how the parts do it (`passes`, `spread`, `resuming`, `store`, `fingerprints`).

Shapes: N rows, D features, C classes.
"""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from clip_core import Bundle
from clip_core.errors import ConfigError, DataError
from clip_core.zero_shot import Template, class_prompts
from clip_eval.features import Excluded, ImageFeatures, check_finite, count_truncated
from clip_eval.fingerprints import FeatureKey, check_tokenizer, image_key, text_key, weights_checksum
from clip_eval.passes import Clock, Computing, encode_images, encode_texts
from clip_eval.precision import Precision, resolve_precision
from clip_eval.processes import Ranks
from clip_eval.resuming import Shelf, encode_units
from clip_eval.spread import NAME, cut
from clip_eval.store import FeatureStore, Kind, Shard
from clip_eval.wds import Sample, WdsDataset, image_extension, image_name

__all__ = ["Encoder", "Outlook"]

_TEXTS_IN_A_FILE = 4096
"""A block of texts is what is kept, found, and lost with a kill, at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What an encoder would have to do for the images of a data set."""

    images: int
    images_found: int
    """Of them in the store."""
    shards: int
    shards_found: int


@dataclass(slots=True, kw_only=True)
class Encoder:
    """Encodes with `bundle`, whose model is in evaluation mode.

    Raises `ConfigError` when it is made: for a precision that the weights or the device cannot have, for numbers out
    of range, and for a model in training mode.
    """

    bundle: Bundle
    batch_size: int = 64
    """Images encoded at once; of texts four times as many. Other batches give features that differ by rounding."""
    workers: int = 1
    """Threads that decode images, ahead of the model; 0 decodes between the batches."""
    progress: bool = False
    """Show a bar on stderr, in the first process."""
    store: FeatureStore | None = None
    """Where features are looked up first and kept."""
    ranks: Ranks = field(default_factory=Ranks)
    """The processes that share the work. All of them make the same calls, and all get the same full features."""
    precision: Precision | None = None
    """In what the towers compute (see `clip_eval.precision`); None is fp32, or pure for weights shorter than that."""
    deterministic: bool = False
    """Compute each image and each text by itself: slower, and the same to the last bit whatever the batch size."""
    _keys: dict[Kind, FeatureKey] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.workers < 0:
            raise ConfigError(
                f"batch_size={self.batch_size}, workers={self.workers}: a batch holds 1 or more images, workers are 0 "
                "or more."
            )
        if self.bundle.model.training:
            raise ConfigError("The model is in training mode, where layers may draw at random; call its eval() first.")
        self.precision = resolve_precision(self.precision, self.bundle.model)

    def images(self, dataset: WdsDataset) -> ImageFeatures:
        """Features of all images of `dataset`; those that do not decode are left out and named.

        Raises:
            DataError: a shard cannot be read or changes meanwhile, no image decodes at all, or a feature is not finite.
            ConfigError: the processes do not agree about model, data or settings.
            LostProcess: one of the other processes has ended.
        """
        samples, clock = dataset.samples, Clock()
        units = _by_shard(samples)
        if self.store is None and len(units) == len(samples):
            # Images in files of their own make whole batches, too; only a store wants them one by one.
            units = [range(len(samples))]
        self._agree(f"the samples of {dataset.name}", f"{len(samples)}, {_hash(_members(samples))[:12]}")
        shards, names = self._image_files(samples, units, clock)
        with self._bar(len(samples), "images") as show:
            dealt = partial(show, processes=self.ranks.size)
            gathered = encode_units(
                units,
                names,
                self._shelf("images", clock),
                partial(encode_images, self.bundle, samples, how=self._how, clock=clock, show=dealt),
                self.ranks,
                batch_size=self.batch_size,
                width=self.bundle.config.embed_dim,
                made_with=self._made_with(),
                clock=clock,
                show=show,
                check=lambda place: shards[place].check_unchanged() if shards else None,
            )
        kept = torch.cat([part.places for part in gathered.parts])
        excluded = tuple(
            Excluded(place, name, reason.replace(NAME, name))
            for part in gathered.parts
            for place, reason in part.left_out.items()
            for name in (image_name(samples[place]),)
        )
        if not len(kept):
            first = f" The first one: {excluded[0].reason}" if excluded else ""
            raise DataError(f"None of the {len(samples)} images can be decoded.{first}")
        return ImageFeatures(
            features=torch.cat([part.features for part in gathered.parts]),
            kept=kept,
            excluded=excluded,
            seconds_decode=clock.seconds["decode"],
            seconds_encode=clock.seconds["encode"],
            seconds_store=clock.seconds["store"],
            found=gathered.found,
            made_with=tuple(gathered.made_with),
        )

    def texts(self, texts: Sequence[str]) -> Tensor:
        """Features of `texts`, float32 (N, D), rows of length 1, in their order; equal texts have equal rows.

        A store keeps blocks of the distinct texts, sorted, and finds them for the same texts again. It does not look
        for single texts: a model shares work among the texts of a batch, so their last digits depend on their
        neighbours, and what is found must be what would be made.

        Raises:
            DataError: a feature is not finite.
            ConfigError: there are none, the tokenizer pads otherwise than the model's configuration says, or the
                processes do not agree.
            LostProcess: one of the other processes has ended.
        """
        if isinstance(texts, str) or not texts:
            raise ConfigError(f"texts is {texts!r}; allowed: a list of one or more.")
        check_tokenizer(self.bundle)
        # Texts that begin alike share that part of the work where they are in one batch (clip_core.layers.reading).
        distinct, clock = sorted(set(texts)), Clock()
        self._agree("the texts", f"{len(distinct)}, {_hash(distinct)[:12]}")
        units = cut(range(len(distinct)), _TEXTS_IN_A_FILE)
        with self._bar(len(distinct), "texts") as show:
            dealt = partial(show, processes=self.ranks.size)
            gathered = encode_units(
                units,
                [_hash(distinct[unit.start : unit.stop]) for unit in units],
                self._shelf("texts", clock),
                partial(encode_texts, self.bundle, distinct, how=self._how, clock=clock, show=dealt),
                self.ranks,
                batch_size=4 * self.batch_size,
                width=self.bundle.config.embed_dim,
                made_with=self._made_with(),
                clock=clock,
                show=show,
            )
        rows = {text: row for row, text in enumerate(distinct)}
        return torch.cat([part.features for part in gathered.parts])[torch.tensor([rows[text] for text in texts])]

    def classifier(
        self, classnames: Sequence[str] | Mapping[str, Sequence[str]], templates: Sequence[Template] | None = None
    ) -> Tensor:
        """Classifier weights, float32 (D, C), columns of length 1: the mean of each class's normalised prompts.

        classnames: names for the templates, or the prompts of each class in full (see `clip_core.zero_shot`).
        """
        classes = class_prompts(classnames, templates)
        distinct = {prompt: 0 for prompts in classes for prompt in prompts}
        rows = {prompt: row for row, prompt in enumerate(distinct)}
        features = self.texts(list(rows))
        means = [features[[rows[prompt] for prompt in prompts]].mean(dim=0) for prompts in classes]
        weights = F.normalize(torch.stack(means), dim=-1)
        check_finite(weights, list(classnames), "class name")
        return weights.T.contiguous()

    def count_truncated(self, texts: Sequence[str]) -> int:
        """How many of `texts` are longer than the model's context."""
        return count_truncated(self.bundle, texts)

    def describe(self, dataset: WdsDataset) -> Outlook:
        """What `images` would have to do. With a store, shards that it does not know and the weights are hashed."""
        units = _by_shard(dataset.samples)
        there = [False] * len(units)
        shelf = self._shelf("images", Clock())
        if shelf is not None:
            _, names = self._image_files(dataset.samples, units, Clock())
            held = [shelf.store.path("images", shelf.key, name).exists() for name in names]
            there = json.loads(self.ranks.text_from_first(json.dumps(held)))
        return Outlook(
            images=len(dataset.samples),
            images_found=sum(len(unit) for unit, held in zip(units, there, strict=True) if held),
            shards=len(units),
            shards_found=sum(there),
        )

    def estimate_seconds(self, dataset: WdsDataset) -> float:
        """About how long `images` would take without a store, for which one batch is read and encoded.

        With several processes each of them measures, and the slowest counts.
        """
        samples = dataset.samples
        batch = range(min(self.batch_size, len(samples)))

        def measure() -> float:
            start = time.perf_counter()
            list(encode_images(self.bundle, samples, [batch], self._how, Clock(), lambda count: None))
            return time.perf_counter() - start

        own = torch.tensor([self.ranks.together(measure)])
        slowest = float(torch.cat(self.ranks.gather(own)).max())
        return slowest * len(samples) / len(batch) / self.ranks.size

    @property
    def _how(self) -> Computing:
        assert self.precision is not None  # __post_init__
        return Computing(precision=self.precision, deterministic=self.deterministic, workers=self.workers)

    def _shelf(self, kind: Kind, clock: Clock) -> Shelf | None:
        if self.store is None:
            return None
        assert self.precision is not None
        if kind not in self._keys:
            make = image_key if kind == "images" else text_key
            with clock.count("store"):
                self._keys[kind] = make(
                    self.bundle, self.precision, deterministic=self.deterministic, dtype=self.store.dtype
                )
        return Shelf(self.store, kind, self._keys[kind], self.ranks)

    def _image_files(
        self, samples: Sequence[Sample], units: Sequence[range], clock: Clock
    ) -> tuple[list[Shard], list[str]]:
        """The shard of each unit and the name of its file in the store; only process 0 knows them."""
        store = self.store
        if store is None:
            return [], [""] * len(units)

        def look() -> list[Shard]:
            return [store.shard(samples[unit.start].shard) for unit in units] if self.ranks.first else []

        with clock.count("store"):
            shards = self.ranks.together(look)
        if not self.ranks.first:
            return [], [""] * len(units)
        # A data set may take some of a shard's samples, and then they make other batches.
        members = [_hash(_members(samples[unit.start : unit.stop]))[:16] for unit in units]
        return shards, [f"{shard.sha256}-{digest}" for shard, digest in zip(shards, members, strict=True)]

    def _agree(self, what: str, value: str) -> None:
        """Raises `ConfigError` unless all processes have the same input, weights and settings."""
        if self.ranks.size > 1:
            self.ranks.agree(what, value)
            self.ranks.agree("the weights", weights_checksum(self.bundle.model)[:12])
            self.ranks.agree("precision and batches", f"{self._how.precision}, {self.deterministic}, {self.batch_size}")

    def _made_with(self) -> dict[str, Any]:
        device = self.bundle.model.logit_scale.device
        return {
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
            "threads": torch.get_num_threads() if device.type == "cpu" else None,
            "batch_size": self.batch_size,
            "versions": {name: version(name) for name in ("torch", "torchvision", "pillow")},
        }

    @contextmanager
    def _bar(self, total: int, what: str) -> Iterator[Callable[..., None]]:
        """A progress bar of the first process: `show(count, processes)`, where so many do alike."""
        from tqdm.auto import tqdm

        shown = self.progress and self.ranks.first
        with tqdm(total=total, desc=what, unit=f" {what}", disable=not shown, dynamic_ncols=True) as bar:

            def show(count: int, processes: int = 1) -> None:
                bar.update(max(0, min(count * processes, total - bar.n)))

            yield show


def _by_shard(samples: Sequence[Sample]) -> list[range]:
    """The places of neighbouring samples that are in one shard."""
    units, start = [], 0
    for _, group in groupby(samples, key=lambda sample: sample.shard):
        stop = start + sum(1 for _ in group)
        units.append(range(start, stop))
        start = stop
    return units


def _members(samples: Sequence[Sample]) -> Iterator[str]:
    """What tells samples of a shard apart: the key, and where the image lies."""
    for sample in samples:
        extension = image_extension(sample)
        yield json.dumps([sample.key, extension, *sample.members[extension]])


def _hash(texts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        digest.update(b"%d:" % len(data) + data)
    return digest.hexdigest()
