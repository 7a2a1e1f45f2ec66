"""Strict configuration records: frozen dataclasses that check themselves and go to JSON and back without loss.

A record subclasses `Schema`. Building one checks every field against its annotation, then calls `check()` for what
types cannot say. `from_json` refuses unknown and missing keys, with the nearest name. A union of records is told
apart by the class attribute `kind`, written as the key "kind". What this room leaves out: reading and writing files.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, TypeVar

from clip_core.errors import ConfigError, nearest

__all__ = ["JSON", "Schema", "from_json"]

JSON = dict[str, Any]
S = TypeVar("S", bound="Schema")

# Resolving annotations is slow and every record does it when it is built.
_ANNOTATIONS: dict[type, dict[str, Any]] = {}


class Schema:
    """Base of configuration records; subclasses are `@dataclass(frozen=True, kw_only=True, slots=True)`."""

    __slots__ = ()
    kind: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for name, annotation in _annotations(type(self)).items():
            value = getattr(self, name)
            if not _matches(value, annotation):
                raise ConfigError(
                    f"{type(self).__name__}.{name} is {value!r} ({type(value).__name__}); allowed: {_say(annotation)}."
                )
        self.check()

    def check(self) -> None:
        """Raise `ConfigError` for values that have the right type and are still not allowed."""

    def require(self, ok: bool, field: str, allowed: str) -> None:
        """Raise `ConfigError` naming `field`, its value and what is `allowed` unless `ok`."""
        if not ok:
            raise ConfigError(f"{type(self).__name__}.{field} is {getattr(self, field)!r}; allowed: {allowed}.")

    def to_json(self) -> JSON:
        """This record as plain dicts, lists and scalars; `from_json` gives an equal record back."""
        body = {name: _plain(getattr(self, name)) for name in _annotations(type(self))}
        return {"kind": self.kind, **body} if self.kind else body

    @classmethod
    def from_json(cls: type[S], data: object) -> S:
        """The record that `data` states; raises `ConfigError` for unknown, missing or ill-typed keys."""
        if not isinstance(data, Mapping):
            kind = type(data).__name__
            raise ConfigError(f"{cls.__name__}.from_json takes a dict as json.load gives it, not {kind}.")
        record = from_json(cls, data, cls.__name__)
        assert isinstance(record, cls)
        return record


def from_json(annotation: Any, data: Any, where: str) -> Any:
    """`data` (decoded JSON) as a value of type `annotation`; `where` names the place in error messages."""
    records = [option for option in _options(annotation) if isinstance(option, type) and issubclass(option, Schema)]
    if records and isinstance(data, Mapping):
        return _record(_choose(records, data, where), data, where)
    return _tuples(data)


def _tuples(data: Any) -> Any:
    """`data` with its lists, inner ones too, as tuples: the only sequence a record holds."""
    return tuple(map(_tuples, data)) if isinstance(data, list) else data


def _record(cls: type[Schema], data: Mapping[str, Any], where: str) -> Schema:
    annotations = _annotations(cls)
    given = {key: value for key, value in data.items() if not (key == "kind" and cls.kind)}
    for key in given:
        if key not in annotations:
            close = nearest(key, annotations)
            hint = f" Did you mean {', '.join(close)}?" if close else f" Allowed: {', '.join(annotations)}."
            raise ConfigError(f"{where} has no key {key!r}.{hint}")
    optional = {
        field.name
        for field in dataclasses.fields(cls)  # type: ignore[arg-type]  # every Schema is a dataclass
        if field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
    }
    missing = [name for name in annotations if name not in given and name not in optional]
    if missing:
        raise ConfigError(f"{where} lacks the key {missing[0]!r}; it must state {', '.join(annotations)}.")
    return cls(**{key: from_json(annotations[key], value, f"{where}.{key}") for key, value in given.items()})


def _choose(records: list[type[Schema]], data: Mapping[str, Any], where: str) -> type[Schema]:
    kinds = {record.kind: record for record in records}
    if len(records) == 1 and not records[0].kind:
        return records[0]
    kind = data.get("kind")
    if not isinstance(kind, str) or kind not in kinds:
        raise ConfigError(f"{where}.kind is {kind!r}; allowed: {', '.join(map(repr, kinds))}.")
    return kinds[kind]


def _annotations(cls: type[Schema]) -> dict[str, Any]:
    if cls not in _ANNOTATIONS:
        hints = typing.get_type_hints(cls)
        _ANNOTATIONS[cls] = {
            field.name: hints[field.name]
            for field in dataclasses.fields(cls)  # type: ignore[arg-type]  # every Schema is a dataclass
        }
    return _ANNOTATIONS[cls]


def _options(annotation: Any) -> tuple[Any, ...]:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return typing.get_args(annotation)
    return (annotation,)


def _matches(value: Any, annotation: Any) -> bool:
    for option in _options(annotation):
        origin, arguments = typing.get_origin(option), typing.get_args(option)
        if origin is Literal:
            if any(value == choice and type(value) is type(choice) for choice in arguments):
                return True
        elif origin is tuple:
            if isinstance(value, tuple) and _tuple_matches(value, arguments):
                return True
        elif option is float:
            # An int is a fine float; NaN and infinities are not values a configuration can hold.
            if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < float("inf"):
                return True
        elif option is int:
            if isinstance(value, int) and not isinstance(value, bool):
                return True
        elif option is None or option is type(None):
            if value is None:
                return True
        elif isinstance(option, type) and isinstance(value, option):
            return True
    return False


def _tuple_matches(value: tuple[Any, ...], arguments: tuple[Any, ...]) -> bool:
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return all(_matches(item, arguments[0]) for item in value)
    return len(value) == len(arguments) and all(map(_matches, value, arguments))


def _say(annotation: Any) -> str:
    """`annotation` in words for an error message."""
    words: list[str] = []
    for option in _options(annotation):
        origin, arguments = typing.get_origin(option), typing.get_args(option)
        if origin is Literal:
            words.extend(map(repr, arguments))
        elif origin is tuple:
            words.append(f"a tuple of {', '.join('...' if a is Ellipsis else _say(a) for a in arguments)}")
        elif option is float:
            words.append("a finite number")
        elif option is None or option is type(None):
            words.append("None")
        else:
            words.append(f"{option.__name__}")
    return " or ".join(words)


def _plain(value: Any) -> Any:
    if isinstance(value, Schema):
        return value.to_json()
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value
