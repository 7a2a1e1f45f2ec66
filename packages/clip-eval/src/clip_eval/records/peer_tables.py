"""Results in the layouts of other tools, so that what reads theirs reads ours: their columns, in their order.

CLIP_benchmark's table, OpenCLIP's `openclip_results.csv`, DataComp's `eval_results.jsonl`. What a layout has no place
for (intervals, versions) is left out there.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from clip_core.errors import ConfigError
from clip_eval.records.averages import official_score
from clip_eval.records.peers import PEER_TASKS
from clip_eval.records.rows import Row

__all__ = ["OPEN_CLIP_COLUMNS", "PEERS", "clip_benchmark_table", "datacomp_lines", "open_clip_table"]

# As in the benchmark.csv that CLIP_benchmark publishes; its own `build` writes them in another order each time.
_CLIP_BENCHMARK = (
    *("acc1", "acc5", "mean_per_class_recall", "dataset", "model", "pretrained", "task", "mean_average_precision"),
    *("image_retrieval_recall@5", "text_retrieval_recall@5", "model_fullname"),
)
_OPEN_CLIP_FACTS = ("name", "pretrained", "params (M)", "FLOPs (B)")
OPEN_CLIP_COLUMNS = (
    *("ImageNet 1k", "Caltech-101", "CIFAR-10", "CIFAR-100", "CLEVR Counts", "CLEVR Distance", "Country211"),
    *("Describable Textures", "EuroSAT", "FGVC Aircraft", "Food-101", "GTSRB", "ImageNet Sketch", "ImageNet v2"),
    *("ImageNet-A", "ImageNet-O", "ImageNet-R", "KITTI Vehicle Distance", "MNIST", "ObjectNet", "Oxford Flowers-102"),
    *("Oxford-IIIT Pet", "Pascal VOC 2007", "PatchCamelyon", "Rendered SST2", "RESISC45", "Stanford Cars", "STL-10"),
    *("SUN397", "SVHN", "Flickr", "MSCOCO", "WinoGAViL", "iWildCam", "Camelyon17", "FMoW", "Dollar Street", "GeoDE"),
)
"""The 38 data sets of openclip_results.csv in its order; titles of the catalogue."""


def clip_benchmark_table(rows: Sequence[Row]) -> str:
    """CLIP_benchmark's table: the columns of its published one, then the language and further metrics by name."""
    lines = [
        {name: score.value for name, score in row.metrics.items()}
        | {
            "dataset": row.dataset,
            "model": row.model,
            "pretrained": row.pretrained,
            "task": PEER_TASKS.get(row.task, row.task),
            "model_fullname": f"{row.model} {row.pretrained}".rstrip(),
            "language": row.language or "en",
        }
        for row in rows
    ]
    further = sorted({name for row in rows for name in row.metrics} - set(_CLIP_BENCHMARK))
    return _csv(lines, (*_CLIP_BENCHMARK, "language", *further))


def open_clip_table(rows: Sequence[Row]) -> str:
    """OpenCLIP's table of 38 data sets, best average first; the average stays empty where one of the 38 is missing."""
    titles = OPEN_CLIP_COLUMNS
    column = f"Average perf. on {len(titles)} datasets"
    lines: list[dict[str, Any]] = []
    for (model, pretrained), found in _by_model(rows).items():
        scores = {row.entry.title: value for row in found if row.entry and (value := _main(row)) is not None}
        parameters = next((row.record.data["model"]["parameters"] for row in found if row.record is not None), None)
        whole = all(title in scores for title in titles)
        lines.append(
            {title: f"{scores[title]:.4f}" for title in titles if title in scores}
            | {
                "name": model,
                "pretrained": pretrained,
                "params (M)": "" if parameters is None else f"{parameters / 1e6:.2f}",
                column: f"{fmean(scores[title] for title in titles):.4f}" if whole else "",
            }
        )
    lines.sort(key=lambda line: line[column], reverse=True)
    return _csv(lines, (*_OPEN_CLIP_FACTS, column, *titles))


def datacomp_lines(rows: Sequence[Row]) -> str:
    """DataComp's result file of one model.

    Raises:
        ConfigError: the rows are of several models; the layout has no place for their names.
    """
    models = _by_model(rows)
    if len(models) > 1:
        names = ", ".join(":".join(filter(None, model)) for model in models)
        raise ConfigError(
            f"DataComp's file holds one model, and these are {len(models)}: {names}. Choose with --model."
        )
    lines = []
    for row in rows:
        entry = row.entry
        if entry is None or not entry.datacomp:
            continue
        metrics: dict[str, float | None] = {name: score.value for name, score in row.metrics.items()}
        if entry.kind == "retrieval" and "mean_recall@1" not in metrics and (mean := _main(row)) is not None:
            metrics["mean_recall@1"] = mean
        metrics["main_metric"] = _main(row) if entry.scored else None
        lines.append(json.dumps({"key": entry.datacomp, "dataset": entry.title, "metrics": metrics}, allow_nan=False))
    return "".join(f"{line}\n" for line in lines)


PEERS = {"clip_benchmark": clip_benchmark_table, "open_clip": open_clip_table, "datacomp": datacomp_lines}
"""Name for the command line -> what makes the text of the file."""


def _by_model(rows: Sequence[Row]) -> dict[tuple[str, str], list[Row]]:
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row.model, row.pretrained), []).append(row)
    return found


def _main(row: Row) -> float | None:
    score = official_score(row)
    return None if score is None else score.value


def _csv(lines: Sequence[dict[str, Any]], columns: Sequence[str]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return stream.getvalue()
