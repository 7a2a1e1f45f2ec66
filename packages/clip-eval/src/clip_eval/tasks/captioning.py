"""Captioning: a CoCa model describes each image, and the captions are compared with those of people.

Any retrieval set will do. Images are read once more, because a caption needs the tokens of an image, not its feature.
The captions are in the record: as the one answer to each image, with its cosine to the image by the model's own
features. What is not here: how captions are generated (`clip_core.generation`) and compared (`metrics.captions`).
"""

from __future__ import annotations

import inspect
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from clip_core.coca import CoCa
from clip_core.errors import ConfigError, DataError, ImageError
from clip_eval.ahead import run_ahead
from clip_eval.encoder import Encoder
from clip_eval.features import ImageFeatures
from clip_eval.languages import captions_in
from clip_eval.metrics.captions import require_pycocoevalcap, score_captions, split_words
from clip_eval.metrics.ranking import pair_similarities
from clip_eval.precision import compute_context
from clip_eval.reading import read_pixels
from clip_eval.spread import cut
from clip_eval.tasks.result import Answer, Outcomes, SampleResult, TaskResult
from clip_eval.wds import Sample, WdsDataset

__all__ = ["evaluate_captioning", "generate_captions"]


def evaluate_captioning(
    encoder: Encoder,
    dataset: WdsDataset,
    images: ImageFeatures,
    *,
    language: str | None = None,
    seed: int = 0,
    **generation: Any,
) -> TaskResult:
    """Scores generated captions: `Bleu_1` to `Bleu_4`, `METEOR`, `ROUGE_L`, `CIDEr` and `SPICE`, as far as can be.

    The details say how the captions were made and split into words, and which metrics are left out and why.

    Args:
        language: of the captions of people, see `clip_eval.languages`.
        seed: what `method="sample"` draws with; each batch of images has draws of its own.
        generation: arguments of `CoCa.generate`; by default its beam search, which is OpenCLIP's, of captions no longer
            than the model can write.

    Raises:
        ConfigError: the model has no decoder, pycocoevalcap is not installed, or an argument is none of `generate`'s.
        DataError: no image that can be read has a caption.
    """
    model = _require_decoder(encoder)
    settings = _settings(model, generation)
    require_pycocoevalcap()
    references = captions_in(dataset, language)
    rows = [row for row, place in enumerate(images.kept.tolist()) if references[place]]
    if not rows:
        raise DataError(f"{dataset.name}: none of the {len(images.kept)} images that can be read has a caption.")
    places = [int(images.kept[row]) for row in rows]
    start = time.perf_counter()
    captions = generate_captions(encoder, model, [dataset.samples[place] for place in places], settings, seed)
    distinct = list(dict.fromkeys(captions))
    features = encoder.texts(distinct)
    encoded = time.perf_counter()
    columns = {text: column for column, text in enumerate(distinct)}
    cosines = pair_similarities(
        images.features, torch.tensor(rows), features, torch.tensor([columns[text] for text in captions])
    )
    scores = score_captions(captions, [references[place] for place in places])
    clusters = torch.tensor(places)
    return TaskResult(
        task="captioning",
        metrics=scores.metrics,
        ties={},
        details={
            "images": len(places),
            "references": sum(len(references[place]) for place in places),
            "distinct_captions": len(distinct),
            "empty_captions": sum(not caption for caption in captions),
            "generation": settings,
            "seed": seed if settings["method"] == "sample" else None,
            "tokenizer": scores.tokenizer,
            "left_out": scores.left_out,
            "language": language,
        },
        samples=[
            _sample(dataset, place, references[place], caption, cosine)
            for place, caption, cosine in zip(places, captions, cosines.tolist(), strict=True)
        ],
        outcomes={name: Outcomes(values.float(), clusters) for name, values in scores.per_image.items()},
        seconds_texts=encoded - start,
        seconds_metrics=time.perf_counter() - encoded,
    )


def generate_captions(
    encoder: Encoder, model: CoCa, samples: Sequence[Sample], settings: Mapping[str, Any], seed: int = 0
) -> list[str]:
    """One caption for each of `samples`, the same however many processes share the work.

    settings: arguments of `CoCa.generate`. Raises `DataError` for an image that cannot be read.
    """
    ranks, device = encoder.ranks, model.logit_scale.device
    batches = list(enumerate(cut(range(len(samples)), encoder.batch_size)))
    own = batches[ranks.rank :: ranks.size]

    def describe() -> dict[int, str]:
        found: dict[int, str] = {}
        decoded = run_ahead(
            lambda sample: read_pixels(encoder.bundle, sample),
            ([samples[place] for place in batch] for _, batch in own),
            encoder.workers,
        )
        from tqdm.auto import tqdm

        with tqdm(
            total=len(samples), desc="captions", unit=" images", disable=not (encoder.progress and ranks.first)
        ) as bar:
            for number, batch in own:
                pixels = _stack(next(decoded)).to(device)
                draws = torch.Generator(device).manual_seed(seed + number)
                with compute_context(encoder.precision or "fp32", device):
                    ids = model.generate(pixels, generator=draws, **settings)
                for place, row in zip(batch, ids.cpu(), strict=True):
                    found[place] = encoder.bundle.tokenizer.decode(row, skip_special_tokens=True).strip()
                bar.update(min(len(batch) * ranks.size, len(samples) - bar.n))
        return found

    parts = ranks.gather_text(json.dumps(list(ranks.together(describe).items())))
    captions = {place: text for part in parts for place, text in json.loads(part)}
    return [captions[place] for place in range(len(samples))]


def _require_decoder(encoder: Encoder) -> CoCa:
    model = encoder.bundle.model
    if not isinstance(model, CoCa):
        raise ConfigError(
            "The model has no decoder, so it cannot write captions; allowed: CoCa models such as coca_ViT-B-32 and "
            "coca_ViT-L-14."
        )
    return model


def _settings(model: CoCa, given: Mapping[str, Any]) -> dict[str, Any]:
    """What `CoCa.generate` will be called with, its defaults filled in, as plain types."""
    known = {
        name: parameter.default
        for name, parameter in inspect.signature(CoCa.generate).parameters.items()
        if name not in ("self", "images", "prompt", "generator")
    }
    # A caption by default is as long as the model can write, where that is less.
    known["max_length"] = min(known["max_length"], model.text_decoder.context_length)
    strange = sorted(set(given) - set(known))
    if strange:
        raise ConfigError(f"captioning: unknown setting {strange[0]!r}; allowed: {', '.join(known)}, language, seed.")
    return {**known, **given}


def _stack(decoded: Sequence[Tensor | ImageError]) -> Tensor:
    for item in decoded:
        if isinstance(item, ImageError):
            raise DataError(f"An image could be read for its features and cannot be read for its caption: {item}")
    return torch.stack([item for item in decoded if isinstance(item, Tensor)])


def _sample(dataset: WdsDataset, place: int, references: tuple[str, ...], caption: str, cosine: float) -> SampleResult:
    """`right` is a caption that one of the people wrote too, up to case and punctuation."""
    right = split_words(caption) in {split_words(reference) for reference in references}
    answer = Answer(caption, cosine, right)
    return SampleResult(place, dataset.samples[place].key, references, right, (answer,))
