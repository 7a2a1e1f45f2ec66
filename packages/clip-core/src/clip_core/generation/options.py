"""How captions are generated, checked in one place."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from clip_core.errors import ConfigError
from clip_core.schema import Schema

__all__ = ["GenerationOptions"]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class GenerationOptions(Schema):
    """What `CoCa.generate` takes, with the ids of the vocabulary filled in. Lengths are in ids, start and end included.

    The defaults are the search that OpenCLIP's `generate` makes unless told otherwise.
    """

    method: Literal["beam", "greedy", "sample"] = "beam"
    max_length: int = 30
    min_length: int = 5
    beams: int = 2
    beam_groups: int = 1
    diversity_penalty: float = 0.0
    length_penalty: float = 1.0
    beam_score: Literal["logits", "log_probabilities"] = "logits"
    top_k: int | None = None
    top_p: float | None = None
    temperature: float = 1.0
    repetition_penalty: float = 1.0
    start_id: int
    stop_ids: tuple[int, ...]
    pad_id: int

    _BEAM_ONLY: ClassVar[tuple[str, ...]] = (
        "beams", "beam_groups", "diversity_penalty", "length_penalty", "beam_score",
    )  # fmt: skip
    _SAMPLE_ONLY: ClassVar[tuple[str, ...]] = ("top_k", "top_p", "temperature")

    # Its fields are arguments of `CoCa.generate`, whose caller never sees this record: errors name them alone.

    def __post_init__(self) -> None:
        try:
            # `super()` without arguments finds the class before its slots were added.
            Schema.__post_init__(self)
        except ConfigError as error:
            raise ConfigError(str(error).removeprefix(f"{type(self).__name__}.")) from error

    def require(self, ok: bool, field: str, allowed: str) -> None:
        """Raise `ConfigError` naming `field`, its value and what is `allowed` unless `ok`."""
        if not ok:
            raise ConfigError(f"{field} is {getattr(self, field)!r}; allowed: {allowed}.")

    def check(self) -> None:
        self.require(self.max_length >= 2, "max_length", "2 or more (start, end)")
        self.require(
            0 <= self.min_length < self.max_length, "min_length", f"0 or more, less than max_length {self.max_length}"
        )
        self.require(self.beams >= 1, "beams", "1 or more")
        self.require(
            self.beam_groups >= 1 and self.beams % self.beam_groups == 0,
            "beam_groups",
            f"a divisor of beams {self.beams}",
        )
        if self.beam_groups > 1:
            self.require(
                self.diversity_penalty > 0,
                "diversity_penalty",
                "more than 0 (else every group finds the same captions)",
            )
        else:
            self.require(self.diversity_penalty == 0, "diversity_penalty", "0 unless there are several beam_groups")
        self.require(self.top_k is None or self.top_k >= 1, "top_k", "1 or more, or None for every id")
        self.require(self.top_p is None or 0 < self.top_p <= 1, "top_p", "more than 0, at most 1, or None")
        self.require(self.temperature > 0, "temperature", "more than 0; method='greedy' is its limit at 0")
        self.require(self.repetition_penalty > 0, "repetition_penalty", "more than 0; 1 changes nothing")
        self.require(len(self.stop_ids) > 0, "stop_ids", "one id or more")
        for field in dataclasses.fields(self):
            for names, method in ((self._BEAM_ONLY, "beam"), (self._SAMPLE_ONLY, "sample")):
                if field.name in names and self.method != method:
                    unchanged = getattr(self, field.name) == field.default
                    self.require(unchanged, field.name, f"nothing with method {self.method!r}; it is for {method!r}")
