"""Caption choice: the right caption of an image among near misses (SugarCrepe), or of two images and two (Winoground).

An example is all images of one name; where it has several, each caption also chooses among them. An example of which
an image was left out is left out. What is not here: what counts as right (`metrics.choice`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from clip_core.errors import DataError
from clip_eval.encoder import Encoder
from clip_eval.features import ImageFeatures
from clip_eval.metrics.choice import Answers, Questions, score_choice
from clip_eval.metrics.intervals import proportion
from clip_eval.metrics.ranking import pair_similarities
from clip_eval.tasks.result import Answer, Outcomes, SampleResult, TaskResult
from clip_eval.wds import WdsDataset

__all__ = ["evaluate_caption_choice"]


def evaluate_caption_choice(encoder: Encoder, dataset: WdsDataset, images: ImageFeatures) -> TaskResult:
    """Scores a caption choice set: `text_acc`, `acc`, and `image_acc` where examples have several images.

    The names are CLIP_benchmark's; with several images they are Winoground's text, group and image score. A tie is a
    miss. The details have the same by category, where the set names categories.

    Raises:
        DataError: no example is whole, some examples have one image and others several, or the captions of the images
            of one example are not the same.
    """
    start = time.perf_counter()
    examples, incomplete = _group(dataset, images.kept.tolist())
    members = [place for places in examples for place in places]
    rows = {place: row for row, place in enumerate(images.kept.tolist())}
    texts = list(dict.fromkeys(caption for place in members for caption in dataset.captions[place]))
    columns = {text: column for column, text in enumerate(texts)}
    features = encoder.texts(texts)
    encoded = time.perf_counter()

    def compare(pairs: Sequence[tuple[int, str]]) -> Tensor:
        """Similarities, float64 (P,), of images (by place) and captions."""
        row = torch.tensor([rows[place] for place, _ in pairs])
        return pair_similarities(images.features, row, features, torch.tensor([columns[text] for _, text in pairs]))

    text_pairs = [(place, caption) for place in members for caption in dataset.captions[place]]
    similarity = compare(text_pairs)
    asked = _text_questions(dataset, examples, similarity)
    several = len(examples[0]) > 1
    asked_back = _image_questions(dataset, examples, compare) if several else None
    firsts = _first_of_equal(images)
    clusters = torch.tensor([min(firsts[rows[place]] for place in places) for places in examples])
    metrics, answers, ties = score_choice(asked, asked_back, clusters)
    return TaskResult(
        task="caption_choice",
        metrics=metrics,
        ties=ties,
        details={
            "examples": len(examples),
            "examples_left_out": incomplete,
            "images": len(members),
            "captions": len(text_pairs),
            "distinct_captions": len(texts),
            "captions_truncated": encoder.count_truncated(texts),
            "categories": _by_category(dataset, examples, answers, clusters),
        },
        samples=_samples(dataset, members, similarity),
        outcomes={name: Outcomes(part.strict.float(), clusters) for name, part in answers.items()},
        seconds_texts=encoded - start,
        seconds_metrics=time.perf_counter() - encoded,
    )


def _group(dataset: WdsDataset, kept: Sequence[int]) -> tuple[list[list[int]], int]:
    """The places of the images of each whole example, and how many examples are not whole."""
    places: dict[str, list[int]] = {}
    for place, name in enumerate(dataset.examples):
        places.setdefault(name, []).append(place)
    there = set(kept)
    whole = [group for group in places.values() if there.issuperset(group)]
    if not whole:
        raise DataError(
            f"{dataset.name}: none of the {len(places)} examples has all its images; see what was left out."
        )
    sizes = {len(group) > 1 for group in whole}
    if len(sizes) > 1:
        raise DataError(
            f"{dataset.name}: some examples have one image and others several, so image_acc would be about a part of "
            "them. Split the set."
        )
    return whole, len(places) - len(whole)


def _text_questions(dataset: WdsDataset, examples: Sequence[Sequence[int]], similarity: Tensor) -> Questions:
    """One for each image: which of its captions; the pairs are those of `similarity`, in its order."""
    numbered = [(number, place) for number, places in enumerate(examples) for place in places]
    pairs = [
        (question, choice == dataset.right_captions[place])
        for question, (_, place) in enumerate(numbered)
        for choice in range(len(dataset.captions[place]))
    ]
    return Questions(
        similarity,
        torch.tensor([question for question, _ in pairs]),
        torch.tensor([right for _, right in pairs]),
        torch.tensor([number for number, _ in numbered]),
    )


def _image_questions(
    dataset: WdsDataset, examples: Sequence[Sequence[int]], compare: Callable[[Sequence[tuple[int, str]]], Tensor]
) -> Questions:
    """One for each caption that is some image's right one: which of the example's images."""
    pairs: list[tuple[int, str]] = []
    questions: list[int] = []
    right: list[bool] = []
    numbers: list[int] = []
    for number, places in enumerate(examples):
        if len({frozenset(dataset.captions[place]) for place in places}) > 1:
            raise DataError(
                f"{dataset.name}: the images of the example {dataset.examples[places[0]]!r} have different captions to "
                "choose from, so none of them asks for one of the images."
            )
        truths = [dataset.captions[place][dataset.right_captions[place]] for place in places]
        for caption in dict.fromkeys(truths):
            for place, truth in zip(places, truths, strict=True):
                pairs.append((place, caption))
                questions.append(len(numbers))
                right.append(truth == caption)
            numbers.append(number)
    return Questions(compare(pairs), torch.tensor(questions), torch.tensor(right), torch.tensor(numbers))


def _first_of_equal(images: ImageFeatures) -> list[int]:
    """For each row the place of the first image with the same features: SugarCrepe asks several things of one image."""
    first: dict[bytes, int] = {}
    return [
        first.setdefault(row.numpy().tobytes(), place)
        for row, place in zip(images.features, images.kept.tolist(), strict=True)
    ]


def _by_category(
    dataset: WdsDataset, examples: Sequence[Sequence[int]], answers: dict[str, Answers], clusters: Tensor
) -> dict[str, dict[str, object]]:
    """Per category, in alphabetical order, the metrics of its examples; empty where the set has none."""
    names = [dataset.categories[places[0]] if dataset.categories else "" for places in examples]
    found: dict[str, dict[str, object]] = {}
    for category in sorted(set(names) - {""}):
        chosen = torch.tensor([name == category for name in names])
        found[category] = {
            metric: proportion(part.strict[chosen], part.loose[chosen], part.strict[chosen], clusters[chosen]).to_json()
            for metric, part in answers.items()
        }
    return found


def _samples(dataset: WdsDataset, members: Sequence[int], similarity: Tensor) -> list[SampleResult]:
    samples = []
    scores = iter(similarity.tolist())
    for place in members:
        captions, best = dataset.captions[place], dataset.right_captions[place]
        # A caption that ties with the right one goes before it, because the tie counts as a miss.
        answers = sorted(
            (Answer(text, next(scores), number == best) for number, text in enumerate(captions)),
            key=lambda answer: (-answer.similarity, answer.right),
        )
        samples.append(
            SampleResult(place, dataset.samples[place].key, (captions[best],), answers[0].right, tuple(answers[:3]))
        )
    return sorted(samples, key=lambda sample: sample.index)
