"""Pictures with what a model said of them: galleries of answers, and searches by caption."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from clip_eval.gallery import choose
from clip_eval.report.files import data_uri
from clip_eval.report.results import Result
from clip_eval.tasks.result import SampleResult

__all__ = ["Galleries", "Picture", "Search", "galleries", "searches"]

_TRUTHS = 2
"""Captions of a picture that are shown beside a wrong answer."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture with the answers to it."""

    sample: SampleResult
    uri: str

    @property
    def truths(self) -> list[str]:
        """The first of the right texts."""
        return list(self.sample.truth[:_TRUTHS])


@dataclass(frozen=True, slots=True)
class Galleries:
    """The chosen pictures of a record, and of how many they are."""

    confident: list[Picture]
    wrong: list[Picture]
    right: list[Picture]
    wrong_count: int
    count: int


@dataclass(frozen=True, slots=True)
class Search:
    """A caption and the pictures that a model finds for it."""

    caption: str
    rank: str
    found: bool
    answers: list[dict[str, Any]]
    """{"uri", "similarity", "right"}, best first."""
    wanted: str | None
    """The right picture, where it is not among the answers."""


def galleries(result: Result, samples: Sequence[SampleResult], most: int) -> Galleries | None:
    """Up to `most` pictures of each kind; None for a record without samples."""
    if not samples:
        return None
    choice = choose(samples)

    def pictures(chosen: list[SampleResult]) -> list[Picture]:
        return [Picture(sample, data_uri(result.path, sample.index)) for sample in chosen[:most]]

    return Galleries(
        pictures(choice.confident),
        pictures(choice.wrong),
        pictures(choice.right),
        sum(not sample.right for sample in samples),
        len(samples),
    )


def searches(result: Result, most: int) -> list[Search]:
    """Caption to pictures, of the captions that the record states; those that fail first."""
    found = []
    for entry in result.details.get("searches") or []:
        answers = [
            {
                "uri": data_uri(result.path, answer["image"]),
                "similarity": float(answer["similarity"]),
                "right": answer["image"] == entry["image"],
            }
            for answer in entry["answers"]
        ]
        hit = any(answer["right"] for answer in answers)
        rank = float(entry["rank"])
        found.append(
            Search(
                caption=str(entry["caption"]),
                rank=f"{rank:,.1f}".removesuffix(".0"),
                found=bool(answers) and bool(answers[0]["right"]),
                answers=answers,
                wanted=None if hit else data_uri(result.path, entry["image"]),
            )
        )
    return sorted(found, key=lambda search: search.found)[:most]
