"""The validation loss, and retrieval among the validation pairs, as open_clip computes and names them.

The loss is CLIP's over batches of `--batch-size` pairs in the order of the data, so it is open_clip's number on one
process; batches are dealt out to the processes, and what they give does not depend on how many there are. Samples that
cannot be used are left out and counted.

Shapes: N pairs, D features. What this room leaves out: when it is done (`turns`).
"""

from __future__ import annotations

import dataclasses
import logging
import statistics
import threading
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from clip_core import Bundle, ImageError, open_image
from clip_core.errors import DataError
from clip_core.preprocess_naflex import stack_patches
from clip_eval.ahead import run_ahead
from clip_eval.metrics.pair_ranking import rank_pairs
from clip_eval.metrics.ranking import Ranks as Standings
from clip_eval.processes import Ranks
from clip_train.config import TrainConfig
from clip_train.data.images import each
from clip_train.data.source import open_source
from clip_train.precision import autocast

__all__ = ["Validation", "retrieval_metrics"]

_log = logging.getLogger(__name__)


class Validation:
    """The pairs of `--val-data`, opened."""

    def __init__(self, config: TrainConfig) -> None:
        """Raises `ConfigError` or `DataError` as training data does."""
        self._config = config
        given, own = config.evaluation, config.data
        kind = "auto" if own.dataset_type == "synthetic" else own.dataset_type
        self._source = open_source(
            dataclasses.replace(
                own,
                train_data=str(given.val_data),
                dataset_type=kind,
                train_num_samples=None,
                train_data_upsampling_factors=None,
                dataset_resampled=False,
            )
        )
        self._lock = threading.Lock()
        if not len(self._source):
            raise DataError(f"--val-data {given.val_data} holds no pair.")
        self._count = min(given.val_num_samples or len(self._source), len(self._source))
        _log.info("%d validation pairs", self._count)

    @torch.no_grad()
    def run(self, bundle: Bundle, ranks: Ranks) -> dict[str, float]:
        """Loss and retrieval metrics of the model, which is in evaluation mode; the same on every process.

        Raises `DataError` when the storage fails, or no pair can be used.
        """
        size = self._config.optim.batch_size
        numbers = range(-(-self._count // size))
        mine = [range(number * size, min(self._count, (number + 1) * size)) for number in numbers][
            ranks.rank :: ranks.size
        ]
        found = ranks.together(lambda: list(self._batches(bundle, mine)))
        width = bundle.config.embed_dim
        # Where each pair stands in the data puts the rows of all processes into one order.
        places = _gathered([places for places, *_ in found], ranks, torch.zeros(0, dtype=torch.int64))
        order = places.argsort()
        images, texts = (
            _gathered([part[column] for part in found], ranks, torch.zeros(0, width))[order] for column in (1, 2)
        )
        losses = _gathered([part[3] for part in found], ranks, torch.zeros(0, 2, dtype=torch.float64))
        if not len(places):
            raise DataError(f"None of the {self._count} pairs of --val-data can be used.")
        losses = losses[_gathered([part[0][:1] for part in found], ranks, torch.zeros(0, dtype=torch.int64)).argsort()]
        given = self._config.evaluation
        if given.val_retrieval_precision == "model":
            low = {"amp": torch.float16, "amp_bf16": torch.bfloat16}.get(self._config.run.precision, bundle.model.dtype)
            images, texts = images.to(low).float(), texts.to(low).float()
        return {
            "clip_val_loss": float((losses[:, 0] * losses[:, 1]).sum() / losses[:, 1].sum()),
            **retrieval_metrics(images, texts, ranks, chunk=given.val_retrieval_chunk_size),
            "num_samples": float(len(places)),
            "skipped_samples": float(self._count - len(places)),
        }

    def _batches(self, bundle: Bundle, batches: list[range]) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Of each batch its places, features of images and texts, and (1, 2): loss and pairs."""
        model, config = bundle.model, self._config
        device = model.logit_scale.device
        transform: Any = bundle.preprocess

        def read(index: int) -> tuple[Any, str] | str:
            try:
                with self._lock:  # a source keeps its place in a file
                    data, text = self._source.read(index)
                caption = text.decode("utf-8").strip()
                if not caption:
                    return "the caption is empty."
                return transform(open_image(data, name=self._source.label(index))), caption
            except UnicodeDecodeError as error:
                return f"the caption is not UTF-8 ({error.reason} at byte {error.start})."
            except ImageError as error:
                return str(error)

        for batch, samples in zip(batches, run_ahead(read, batches, config.data.workers), strict=True):
            good: list[tuple[int, Any, str]] = []
            for index, sample in zip(batch, samples, strict=True):
                if isinstance(sample, str):
                    _log.warning("validation without %s: %s", self._source.label(index), sample)
                else:
                    good.append((index, *sample))
            if not good:
                continue
            images = [image for _, image, _ in good]
            pixels: Any = stack_patches(images) if isinstance(images[0], dict) else torch.stack(images)
            pixels = each(pixels, lambda value: value.to(device))
            tokens, lengths = bundle.tokenizer.tokenize([caption for *_, caption in good])
            with autocast(config.run.precision, device):
                seen = model.encode_image(pixels, normalize=True).float()
                texts = model.encode_text(
                    tokens.to(device), normalize=True, lengths=lengths.clamp(max=tokens.shape[1]).tolist()
                ).float()
            loss = _loss(seen, texts, model.logit_scale.float().exp())
            yield (
                torch.tensor([index for index, *_ in good]),
                seen.cpu(),
                texts.cpu(),
                torch.tensor([[float(loss), float(len(good))]], dtype=torch.float64),
            )


def _loss(images: Tensor, texts: Tensor, scale: Tensor) -> Tensor:
    logits = scale * images @ texts.T
    right = torch.arange(len(images), device=images.device)
    return (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2


def _gathered(parts: list[Tensor], ranks: Ranks, empty: Tensor) -> Tensor:
    return torch.cat(ranks.gather(torch.cat([empty, *parts])))


def retrieval_metrics(images: Tensor, texts: Tensor, ranks: Ranks, *, chunk: int) -> dict[str, float]:
    """open_clip's metrics for N pairs of rows of length 1: mean and median rank and recall, both directions.

    Ties count with their expected rank; open_clip takes them in whatever order its sort leaves them.
    """
    pairs = rank_pairs(
        images,
        texts,
        torch.arange(len(texts)),
        chunk=chunk,
        share=(ranks.rank, ranks.size),
        combine=lambda part: torch.stack(ranks.gather(part[None])).sum(dim=0)[0],
    )
    return {**_metrics("image_to_text", pairs.by_image), **_metrics("text_to_image", pairs.by_text)}


def _metrics(name: str, standings: Standings) -> dict[str, float]:
    places = standings.positions().expected
    return {
        f"{name}_mean_rank": float(places.mean()),
        f"{name}_median_rank": float(int(statistics.median((places - 1).tolist()))) + 1,
        **{f"{name}_R@{k}": float(standings.hits(k).expected.mean()) for k in (1, 5, 10)},
    }
