"""Which member of a sample is the image, and where its caption comes from; several captions are chosen among by weight.

What this room leaves out: where members lie (`table`), and tokens.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from clip_core.errors import ConfigError
from clip_train.keyed import mix

__all__ = ["Keys", "choose", "json_caption", "parse_alternatives", "weighted_order"]

JSON = "json"


@dataclasses.dataclass(frozen=True)
class Keys:
    """What a sample's members are called."""

    image: tuple[str, ...] = ("jpg", "png", "jpeg", "webp")
    """The first of these that a sample has is its image."""
    text: tuple[str, ...] = ("txt",)
    """The first of these that it has is its caption."""
    json_text: tuple[str, ...] = ()
    """Fields of the json member; where given, the caption is the first of these that holds text, and `text` is not
    looked at. "a.b" is the field b of the object a; of a list of texts one is chosen."""
    weights: tuple[float, ...] = ()
    """Of `json_text`; where given, their order is drawn for each sample and pass. What has weight 0 comes last."""

    @classmethod
    def of(cls, image: str, text: str, json_text: str | None, weights: Sequence[float] | None) -> Keys:
        """From the values of open_clip's flags; raises `ConfigError` for weights that fit no field."""
        fields = parse_alternatives(json_text or "")
        given = tuple(weights or ())
        if given and not fields:
            raise ConfigError("--json-text-key-probs needs --json-text-key, the fields that it weighs.")
        if len(given) > len(fields):
            raise ConfigError(f"--json-text-key-probs has {len(given)} weights for {len(fields)} fields.")
        if given and (min(given) < 0 or not 0 < sum(given) < float("inf")):
            raise ConfigError(f"--json-text-key-probs is {given}; allowed: numbers from 0, not all of them 0.")
        if given:
            given += (0.0,) * (len(fields) - len(given))
        return cls(parse_alternatives(image), parse_alternatives(text), fields, given)

    @property
    def caption(self) -> tuple[str, ...]:
        """The members that a caption may be in."""
        return (JSON,) if self.json_text else self.text

    def describe(self) -> str:
        """What is looked for, for messages."""
        return f"an image (.{', .'.join(self.image)}) and a caption (.{', .'.join(self.caption)})"


def parse_alternatives(text: str) -> tuple[str, ...]:
    """The parts of "jpg;png", without dots in front and blanks around."""
    return tuple(part for each in text.split(";") if (part := each.strip().lstrip(".")))


def choose(wanted: Sequence[str], members: Mapping[str, Any]) -> str | None:
    """The first of `wanted` among a sample's members, whose extensions are in lower case."""
    return next((key.lower() for key in wanted if key.lower() in members), None)


def json_caption(data: bytes, keys: Keys, draw: int) -> bytes:
    """The caption in a json member, in UTF-8; empty where no field holds text. `draw`: 64 keyed bits that decide."""
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        return b""
    order = weighted_order(keys.weights, draw) if keys.weights else range(len(keys.json_text))
    for number in order:
        text = _text(_look_up(fields, keys.json_text[number]), mix(draw, number))
        if text:
            return text.encode("utf-8", "replace")
    return b""


def weighted_order(weights: Sequence[float], draw: int) -> list[int]:
    """The positions of `weights` in a drawn order: each next one with a chance in proportion to its weight.

    Those of weight 0 come last, in their own order.
    """
    left = [number for number, weight in enumerate(weights) if weight > 0]
    drawn: list[int] = []
    while left:
        point = mix(draw, len(drawn)) / 2**64 * sum(weights[number] for number in left)
        for number in left:
            point -= weights[number]
            if point < 0:
                break
        drawn.append(number)
        left.remove(number)
    return drawn + [number for number, weight in enumerate(weights) if weight <= 0]


def _look_up(fields: Any, path: str) -> Any:
    if isinstance(fields, Mapping) and path in fields:
        return fields[path]
    for part in path.split("."):
        if not isinstance(fields, Mapping):
            return None
        fields = fields.get(part)
    return fields


def _text(value: Any, draw: int) -> str:
    if isinstance(value, list):
        texts = [text for text in value if isinstance(text, str) and text.strip()]
        value = texts[draw % len(texts)] if texts else ""
    return value.strip() if isinstance(value, str) else ""
