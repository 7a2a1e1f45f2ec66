"""One call from a model and a data set to a record: strict JSON that says what was measured, on what, and with what.

What is not here: collections of data sets by name, records as files, the report.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from clip_core import Bundle
from clip_eval.encoder import Encoder
from clip_eval.records import Record, dataset_facts, model_facts, run_facts
from clip_eval.tasks import evaluate_retrieval, evaluate_zero_shot
from clip_eval.wds import WdsDataset

__all__ = ["evaluate"]

_log = logging.getLogger(__name__)


def evaluate(
    bundle: Bundle,
    dataset: WdsDataset,
    *,
    model_name: str = "",
    templates: Sequence[str] | None = None,
    batch_size: int = 64,
    workers: int = 1,
    progress: bool = False,
    facts: Mapping[str, Any] | None = None,
) -> Record:
    """Encodes `dataset` with `bundle` and scores its task.

    model_name: what to call the model in the record. templates: prompts instead of the data set's own
    (classification). workers: threads that decode. facts: `model_facts(bundle)` where the caller has it already,
    for several data sets. Raises `DataError` for unreadable shards and for features that are not finite.
    """
    start = time.perf_counter()
    bundle.model.eval()
    encoder = Encoder(bundle=bundle, batch_size=batch_size, workers=workers, progress=progress)
    images = encoder.images(dataset)
    if dataset.kind == "classification":
        result = evaluate_zero_shot(encoder, dataset, images, templates=templates)
    else:
        result = evaluate_retrieval(encoder, dataset, images)
    total = time.perf_counter() - start
    if images.excluded:
        _log.warning("%s: %d of %d images left out", dataset.name, len(images.excluded), len(dataset.samples))
    return Record(
        result=result,
        dataset=dataset,
        excluded=images.excluded,
        facts={
            "model": {"name": model_name, **(facts or model_facts(bundle))},
            "dataset": dataset_facts(dataset, images),
            **run_facts(bundle),
            "batch_size": batch_size,
            "seconds": {
                "decode_wait": images.seconds_decode,
                "encode_images": images.seconds_encode,
                "encode_texts": result.seconds_texts,
                "metrics": result.seconds_metrics,
                "total": total,
            },
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    )
