"""Configurations as files: TOML and JSON in, TOML out. What a key may be, `fields_of` says, with the nearest names.

A file states groups as tables (`[optim]`, `lr = 1e-3`), or fields by their own names, or both; dashes are as good as
underscores. A run's config.json is such a file. What this room leaves out: which fields must be given (`TrainConfig`).
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from clip_core.errors import ConfigError, nearest
from clip_core.preprocess import AugmentConfig
from clip_core.schema import from_json
from clip_train.config.flag import KeyValues
from clip_train.config.spellings import ALIASES, SYNONYMS
from clip_train.config.train import TrainConfig, groups

__all__ = ["fields_of", "to_toml"]


def fields_of(path: str | Path) -> dict[str, Any]:
    """The fields that the file at `path` states, by name; a folder is that of a run.

    Raises `ConfigError` for a file that is not there, is no TOML (.toml) or JSON (.json), or has a key that no field
    has.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "config.json"
    body = _read(path)
    records = {group: typing.get_type_hints(record) for group, record in groups().items()}
    owners = {field.name: group for group, record in groups().items() for field in dataclasses.fields(record)}
    found: dict[str, Any] = {}
    for key, value in body.items():
        # [model] is the group, model = "ViT-B-32" the field.
        if key in records and isinstance(value, Mapping):
            inside = [name for name, group in owners.items() if group == key]
            for name, one in value.items():
                _add(found, name, one, inside, owners, f"{path}, [{key}]")
        else:
            _add(found, key, value, [*owners, *(records if isinstance(value, Mapping) else ())], {}, str(path))
    return {name: _typed(value, records[owners[name]][name], name, path) for name, value in found.items()}


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".toml":
            return tomllib.loads(text)
        if path.suffix == ".json":
            body = json.loads(text)
            if isinstance(body, dict):
                return body
            raise ConfigError(f"--config {path} holds no table of fields but {type(body).__name__}.")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--config {path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    except (tomllib.TOMLDecodeError, json.JSONDecodeError) as error:
        raise ConfigError(f"--config {path} is no valid {path.suffix[1:].upper()}: {error}.") from error
    raise ConfigError(f"--config {path}: say what it is by its ending, .toml or .json.")


def _add(
    found: dict[str, Any], key: str, value: Any, known: Iterable[str], owners: Mapping[str, str], where: str
) -> None:
    known = list(known)
    plain = key.replace("-", "_")
    name = next((field for field, others in ALIASES.items() if plain in others), plain)
    if name not in known:
        if name in owners:
            raise ConfigError(f"{where} has {key!r}, which belongs to [{owners[name]}].")
        close = nearest(name, known) or nearest(name, owners)
        hint = f" Did you mean {', '.join(close)}?" if close else f" Known: {', '.join(known)}."
        raise ConfigError(f"{where} has no key {key!r}.{hint}")
    if name in found:
        raise ConfigError(f"{where} states {name!r} twice.")
    found[name] = value


def _typed(value: Any, annotation: Any, name: str, path: Path) -> Any:
    if annotation is AugmentConfig and isinstance(value, Mapping):
        return AugmentConfig.from_json(value)
    if isinstance(value, Mapping):
        if annotation != KeyValues:
            raise ConfigError(f"{path} has {name!r} as a table; it is one value.")
        value = [list(pair) for pair in sorted(value.items())]
    if isinstance(value, str):
        return SYNONYMS.get(name, {}).get(value, value)
    return from_json(annotation, value, f"{path}: {name}")


def to_toml(config: TrainConfig, origins: Mapping[str, str] | None = None) -> str:
    """`config` as TOML that `fields_of` reads; `origins` (field -> where its value is from) become comments."""
    lines: list[str] = []
    for group, record in groups().items():
        lines += ["", f"[{group}]"]
        for field in dataclasses.fields(record):
            value = getattr(getattr(config, group), field.name)
            origin = (origins or {}).get(field.name)
            remark = f"  # {origin}" if origin else ""
            lines.append(f"# {field.name}: not given" if value is None else f"{field.name} = {_toml(value)}{remark}")
    return "\n".join(lines[1:]) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, AugmentConfig):
        return _table(value.to_json())
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, str):
        # A JSON string is a TOML string, but for DEL, which TOML wants written out.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _table(body: Mapping[str, Any]) -> str:
    return "{ " + ", ".join(f"{key} = {_toml(value)}" for key, value in body.items()) + " }"
