"""Records written by hand in the form of clip-eval's, of every task and of well-known data sets that are not at hand.

The numbers are drawn by lot around plausible ones; pictures are crops of scikit-learn's two photographs. They are for
looking at pages and for their tests: nothing here was measured.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["MODELS", "Writer", "proportion", "write_showcase"]

MODELS = ("ViT-B-32:openai", "ViT-B-16:datacomp_xl_s13b_b90k", "runs/my-finetune/bundle")
_IMAGENET = {"imagenet1k": 0.633, "imagenetv2": 0.559, "imagenet-a": 0.315, "imagenet-r": 0.693, "imagenet-o": 0.4775}
_CLASSES = {"imagenet1k": 1000, "imagenetv2": 1000, "imagenet-a": 200, "imagenet-r": 200, "imagenet-o": 200}
_CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_VOC = ("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "dining table", "dog")
_REGIONS = ("Africa", "Americas", "East Asia", "Europe", "Southeast Asia", "West Asia")
_CAPTIONS = (
    "A temple with a curved roof stands behind a row of trees.",
    "A pink flower in full bloom, seen from above.",
    "People walk past a red gate on a sunny day in front of a very old palace with many golden roofs.",
    "Close-up of petals with drops of water.",
    "A tall tower rises over the water.",
    "Green leaves out of focus behind a blossom.",
)


def proportion(value: float, n: int, **more: Any) -> dict[str, Any]:
    """A share as a record has it, with Wilson's interval."""
    z = 1.959964
    centre = (value + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * (value * (1 - value) / n + z**2 / (4 * n**2)) ** 0.5
    low, high = max(0.0, min(centre - half, value)), min(1.0, max(centre + half, value))
    found = {"value": value, "n": n, "low": low, "high": high, "interval": "Wilson"}
    return {**found, "optimistic": value, "pessimistic": value, **more}


@dataclass
class Writer:
    """Writes records of one model into a folder."""

    folder: Path
    model: str = MODELS[0]
    skill: float = 0.0
    """Added to plausible scores."""

    def random(self, *words: str) -> np.random.Generator:
        """Numbers that depend on the model and on `words` only."""
        return np.random.default_rng(zlib.crc32("/".join([self.model, *words]).encode()))

    def write(
        self,
        dataset: str,
        task: str,
        metrics: Mapping[str, Mapping[str, Any]],
        details: Mapping[str, Any],
        *,
        samples: Sequence[Mapping[str, Any]] = (),
        pictures: Sequence[int] = (),
        ties: Mapping[str, float] | None = None,
        about: Mapping[str, Any] | None = None,
        count: int = 1000,
        excluded: int = 0,
        settings: Mapping[str, Any] | None = None,
    ) -> Path:
        """One record with its samples and pictures."""
        self.folder.mkdir(parents=True, exist_ok=True)
        weights = hashlib.sha256(self.model.encode()).hexdigest()
        name = f"{dataset.replace('/', '-')}.test.{task}.{weights[:12]}.{zlib.crc32(repr(settings).encode()):08x}"
        data = {
            "schema": 1,
            "task": task,
            "metrics": metrics,
            "ties": ties or {},
            "model": {
                "name": self.model,
                "weights_sha256": weights,
                "config_sha256": hashlib.sha256(b"config").hexdigest(),
                "parameters": 151_277_313,
                "logit_scale": 100.0,
                "config": {"embed_dim": 512, "image": {"kind": "vit", "width": 768, "layers": 12}},
            },
            "dataset": {
                "name": dataset,
                "kind": "classification",
                "split": "test",
                "samples": count,
                "evaluated": count - excluded,
                "excluded": {
                    "count": excluded,
                    "first": [{"name": f"s{n:07d}", "reason": "cannot identify image"} for n in range(excluded)][:20],
                },
                "shards_sha256": hashlib.sha256(dataset.encode()).hexdigest(),
                "about": about,
            },
            "settings": dict(settings or {"language": None}),
            "precision": {"model": "float32", "features": "float32", "scores": "float32, summed in float64"},
            "device": "cuda:0",
            "device_name": "NVIDIA H100 80GB HBM3",
            "processes": 8,
            "store": {"hits": 3, "misses": 1},
            "command": f"clip-eval run vtab+ --model {self.model} --output results",
            "seconds": {"decode_wait": 1.5, "encode_images": 20.25, "encode_texts": 2.0, "metrics": 0.5, "total": 24.5},
            "batch_size": 256,
            "versions": {"python": "3.12.4", "clip-eval": "0.1.0", "torch": "2.9.0"},
            "created": "2026-01-31T12:00:00+00:00",
            "details": details,
        }
        path = self.folder / f"{name}.json"
        path.write_text(json.dumps(data, allow_nan=False), encoding="utf-8")
        lines = "".join(json.dumps(sample) + "\n" for sample in samples)
        path.with_suffix(".samples.jsonl").write_text(lines, encoding="utf-8")
        if pictures:
            _draw(path.with_suffix(".images"), pictures)
        return path

    def classification(
        self, dataset: str, names: Sequence[str], value: float, n: int, *, pictures: bool = True, **more: Any
    ) -> Path:
        """Zero-shot classification with classes, confusions, calibration and answers to 60 pictures."""
        random, classes = self.random(dataset), len(names)
        value = min(0.99, max(0.01, value + self.skill))
        per_class = max(1, n // classes)
        recalls = np.clip(random.normal(value, 0.18, classes), 0, 1)
        recalls = np.round(recalls * per_class) / per_class
        value = float(recalls.mean())
        rows = [
            {"name": name, **_some(proportion(float(recall), per_class), "recall")}
            for name, recall in zip(names, recalls, strict=True)
        ]
        details: dict[str, Any] = {
            "templates": ["a photo of a {c}.", "a bad photo of a {c}.", "a drawing of a {c}.", "art of a {c}."],
            "prompts_truncated": 0,
            "classes": rows,
            "chance": {"acc1": 1 / classes, "acc5": min(1.0, 5 / classes), "mean_per_class_recall": 1 / classes},
            "calibration": _calibration(random, value, n),
            **_confusions(random, names, recalls, per_class),
            **more.pop("details", {}),
        }
        metrics = {
            "acc1": proportion(value, n),
            "acc5": proportion(min(1.0, value + 0.6 * (1 - value)), n),
            "mean_per_class_recall": proportion(value, n, interval="normal, stratified by class"),
            **more.pop("metrics", {}),
        }
        samples = _answers(random, names, value) if pictures else []
        shown = [sample["index"] for sample in samples]
        about = {"title": more.pop("title", None), "licence": "as its owners state it", "notes": []}
        return self.write(
            dataset,
            "zero_shot_classification",
            metrics,
            details,
            samples=samples,
            pictures=shown,
            count=n,
            about=about,
            **more,
        )

    def retrieval(self) -> Path:
        """COCO's captions, both ways."""
        random = self.random("coco")
        metrics: dict[str, Any] = {}
        for name, n, values in (("image", 25010, (0.304, 0.559, 0.669)), ("text", 5000, (0.501, 0.75, 0.835))):
            for k, value in zip((1, 5, 10), values, strict=True):
                metrics[f"{name}_retrieval_recall@{k}"] = proportion(min(0.99, value + self.skill), n)
            metrics[f"{name}_retrieval_median_rank"] = {
                "value": 3.0,
                "n": n,
                "low": 3.0,
                "high": 4.0,
                "interval": "order statistics",
            }
        samples = _answers(random, _CAPTIONS, 0.5)
        searches = [
            {
                "caption": _CAPTIONS[number % len(_CAPTIONS)],
                "image": number if number % 2 else 40 + number,
                "rank": 1.0 if number % 2 else float(random.integers(2, 400)),
                "answers": [{"image": number + step, "similarity": 0.31 - 0.02 * step} for step in range(3)],
            }
            for number in range(8)
        ]
        details = {
            "images": 5000,
            "captions": 25010,
            "distinct_captions": 24972,
            "captions_truncated": 3,
            "searches": searches,
        }
        return self.write(
            "mscoco_captions", "retrieval", metrics, details,
            samples=samples, pictures=range(60), count=5000, about={"title": "MSCOCO"}, ties={"image_retrieval": 0.002},
        )  # fmt: skip

    def multilabel(self) -> Path:
        """VOC's twenty labels, of which a picture shows several."""
        random = self.random("voc")
        values = np.clip(random.normal(0.76 + self.skill, 0.12, len(_VOC)), 0.05, 0.99)
        classes = [
            {
                "name": name,
                "positives": int(n),
                "average_precision": float(value),
                "low": float(value) - 0.03,
                "high": min(1.0, float(value) + 0.03),
            }
            for name, value, n in zip(_VOC, values, random.integers(80, 700, len(_VOC)), strict=True)
        ]
        mean = float(values.mean())
        metric = {
            "value": mean,
            "n": 4952,
            "low": mean - 0.012,
            "high": mean + 0.011,
            "interval": "bootstrap, 2000 resamples",
        }
        details = {
            "multilabel": True,
            "classes": classes,
            "chance": {"mean_average_precision": 0.073},
            "templates": ["a photo of a {c}."],
        }
        return self.write(
            "voc2007_multilabel", "zero_shot_classification", {"mean_average_precision": metric}, details,
            count=4952, about={"title": "Pascal VOC 2007, multilabel"},
        )  # fmt: skip

    def caption_choice(self) -> Path:
        """SugarCrepe's way: one right caption of two, by category."""
        random = self.random("crepe")
        categories = {
            name: {"acc": proportion(float(np.clip(random.normal(0.72 + self.skill, 0.08), 0, 1)), 200)}
            for name in ("add_att", "add_obj", "replace_att", "replace_obj", "replace_rel", "swap_att", "swap_obj")
        }
        value = sum(entry["acc"]["value"] for entry in categories.values()) / len(categories)
        metrics = {"acc": proportion(value, 1400, optimistic=value + 0.004)}
        details = {"examples": 1400, "images": 1400, "captions": 2800, "categories": categories, "chance": {"acc": 0.5}}
        return self.write(
            "sugar_crepe", "caption_choice", metrics, details, ties={"acc": 0.004}, about={"title": "SugarCrepe"}
        )

    def probe(self) -> Path:
        """A linear probe with its sweep, over two seeds."""
        runs = [
            {
                "seed": seed, "weight_decay": 10.0**-4, "learnt_from": 9000, "validated_on": 1000, "steps": 40,
                "converged": True, "at_edge_of_grid": False,
                "sweep": [
                    {"decay": 10.0 ** (place - 9), "score": 0.94 - 0.006 * (place - 5) ** 2 * (1 + 0.1 * seed)}
                    for place in range(10)
                ],
            }
            for seed in (0, 1)
        ]  # fmt: skip
        details = {
            "fewshot_k": None, "train_images": 10000, "weight_decay": 10.0**-4, "runs": runs,
            "spread": {"lp_acc1": {"mean": 0.951, "standard_deviation": 0.001, "values": [0.950, 0.952]}},
            "chance": {"lp_acc1": 0.1, "lp_acc5": 0.5},
        }  # fmt: skip
        metrics = {"lp_acc1": proportion(0.951 + self.skill / 4, 10000), "lp_acc5": proportion(0.998, 10000)}
        return self.write("vtab/cifar10", "linear_probe", metrics, details, about={"title": "CIFAR-10"}, count=10000)

    def captioning(self) -> Path:
        """What a CoCa writes."""
        random = self.random("captions")
        samples = []
        for index in range(30):
            first, second, said = random.permutation(len(_CAPTIONS))[:3]
            answers = [{"text": _CAPTIONS[said], "similarity": 0.3, "right": False}]
            truth = [_CAPTIONS[first], _CAPTIONS[second]]
            samples.append({"index": index, "key": f"s{index:07d}", "truth": truth, "right": False, "answers": answers})
        cider = {
            "value": 1.12 + self.skill,
            "n": 5000,
            "low": 1.08,
            "high": 1.25,
            "interval": "bootstrap, 2000 resamples",
        }
        bleu = {"value": 0.36, "n": 5000, "low": 0.35, "high": 0.37, "interval": "bootstrap, 2000 resamples"}
        return self.write(
            "mscoco_captions", "captioning", {"Bleu_4": bleu, "CIDEr": cider}, {"images": 5000, "seed": None},
            samples=samples, pictures=range(30), count=5000, about={"title": "MSCOCO"},
        )  # fmt: skip

    def groups(self) -> Path:
        """Accuracy by region."""
        random = self.random("geode")
        rows = [
            {
                "key": f"acc_region:{place}",
                "name": name,
                **_some(proportion(float(np.clip(random.normal(0.85 + self.skill, 0.05), 0, 1)), 2081), "value"),
            }
            for place, name in enumerate(_REGIONS)
        ]
        worst = min(row["value"] for row in rows)
        return self.classification(
            "fairness/geode", [f"object {n}" for n in range(40)], 0.86, 12488, title="GeoDE", pictures=False,
            metrics={"acc_wg": proportion(worst, 2081), "acc_avg": proportion(0.86, 12488)},
            details={"groups": {"region": rows}, "worst_groups": {"acc_wg": {"name": _REGIONS[0]}}},
        )  # fmt: skip


def write_showcase(folder: Path, models: Sequence[str] = MODELS) -> Path:
    """Every kind of record, for several models; the last of them only on some data sets."""
    for place, model in enumerate(models):
        writer = Writer(folder, model, skill=0.06 * place)
        for name, value in _IMAGENET.items():
            classes = [f"class {number}: a name of some length" for number in range(_CLASSES[name])]
            writer.classification(
                name, classes, value, {"imagenet-a": 7500}.get(name, 10000), pictures=False, title=name
            )
        writer.classification(
            "vtab/cifar10", _CIFAR, 0.86, 10000, title="CIFAR-10", ties={"acc1": 0.011}, excluded=3 * (place == 0)
        )
        writer.retrieval()
        if place < 2:
            writer.multilabel()
            writer.caption_choice()
            writer.groups()
            writer.probe()
            writer.captioning()
    return folder


def _some(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {"n": values["n"], name: values["value"], "low": values["low"], "high": values["high"]}


def _calibration(random: np.random.Generator, value: float, n: int) -> dict[str, Any]:
    shares = random.dirichlet(np.linspace(0.3, 4, 15))
    middles = (np.arange(15) + 0.5) / 15
    accuracy = np.clip(middles * 0.82 + random.normal(0, 0.03, 15), 0, 1)
    bins = [
        {
            "low": place / 15,
            "high": (place + 1) / 15,
            "n": int(share * n),
            "confidence": float(middle),
            "accuracy": float(right),
        }
        for place, (share, middle, right) in enumerate(zip(shares, middles, accuracy, strict=True))
    ]
    error = proportion(float((shares * abs(middles - accuracy)).sum()), n, interval="normal")
    return {"logit_scale": 100.0, "expected_calibration_error": error, "mean_confidence": value + 0.08, "bins": bins}


def _confusions(random: np.random.Generator, names: Sequence[str], recalls: Any, n: int) -> dict[str, Any]:
    classes, counts = len(names), []
    for line, recall in enumerate(recalls):
        weights = random.dirichlet(np.full(classes, 0.2))
        weights[line] = 0
        row = np.floor(weights / max(weights.sum(), 1e-9) * (1 - recall) * n).astype(int)
        row[line] = n - row.sum()
        counts.append(row.tolist())
    pairs = [
        {"truth": names[line], "guess": names[place], "count": count, "of": n}
        for line, row in enumerate(counts)
        for place, count in enumerate(row)
        if count and place != line
    ]
    pairs = sorted(pairs, key=lambda pair: -pair["count"])[:100]
    return {**({"confusion": counts} if classes <= 100 else {}), "confusions": pairs}


def _answers(random: np.random.Generator, names: Sequence[str], value: float) -> list[dict[str, Any]]:
    samples = []
    for index in range(60):
        order = random.permutation(len(names))[:3]
        right = bool(random.random() < value)
        truth = names[order[0]] if right else names[order[1]]
        scores = np.sort(random.normal(0.24, 0.03, 3))[::-1]
        answers = [
            {"text": names[place], "similarity": float(score), "right": names[place] == truth}
            for place, score in zip(order, scores, strict=True)
        ]
        samples.append({"index": index, "key": f"s{index:07d}", "truth": [truth], "right": right, "answers": answers})
    return samples


def _draw(folder: Path, places: Sequence[int]) -> None:
    from PIL import Image
    from sklearn.datasets import load_sample_image

    folder.mkdir(exist_ok=True)
    photos = [load_sample_image(name) for name in ("china.jpg", "flower.jpg")]
    for place in places:
        random, photo = np.random.default_rng(place), photos[place % 2]
        edge = int(random.integers(120, 300))
        top, left = random.integers(0, photo.shape[0] - edge), random.integers(0, photo.shape[1] - edge)
        crop = Image.fromarray(photo[top : top + edge, left : left + int(edge * 1.2)])
        crop.thumbnail((128, 128))
        crop.save(folder / f"{place}.png")
