"""Text for strangers: the folders of this machine, which tell who worked where, become "...".

"/srv/alice/runs/7/{00..31}.tar" is ".../{00..31}.tar"; addresses and relative paths stay. What this room leaves out:
secrets, which are refused (`screening`).
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from typing import Any

__all__ = ["scrubbed", "scrubbed_command", "scrubbed_json", "scrubbed_names"]

_ROOT = r"(?:file://)?(?:~[\w.-]*[/\\]|/(?!/)|[A-Za-z]:[\\/](?!/)|\\\\)"
# In prose a path has two parts at least, and a slash between two words is none.
_IN_PROSE = re.compile(rf"(?<![\w/.\\~]){_ROOT}[^\s'\"`|;<>:/\\]+[/\\][^\s'\"`|;<>:]*")
_WHOLE = re.compile(rf"((?:[\w.-]+:)?)({_ROOT}\S.*)")
_COMMANDS = frozenset({"command"})


def scrubbed(text: str) -> str:
    """`text` with the last part alone of each absolute path; a text that begins with one is one, blanks and all."""
    if "::" in text:  # several places of shards
        return "::".join(map(scrubbed, text.split("::")))
    whole = _WHOLE.fullmatch(text)
    if whole:
        return f"{whole[1]}{_last(whole[2])}"
    return _IN_PROSE.sub(lambda found: _last(found[0]), text)


def scrubbed_names(names: Sequence[str]) -> dict[str, str]:
    """Each of several names scrubbed, and numbered where that makes two of them one: ".../bundle", ".../bundle (2)"."""
    found: dict[str, str] = {}
    for name in names:
        if name in found:
            continue
        short, number = scrubbed(name), 1
        while short in found.values():
            number += 1
            short = f"{scrubbed(name)} ({number})"
        found[name] = short
    return found


def scrubbed_command(text: str) -> str:
    """A command line for a POSIX shell with each of its words scrubbed."""
    try:
        words = shlex.split(text)
    except ValueError:  # a quote is open
        return scrubbed(text)
    return shlex.join(_of_word(word) for word in words)


def scrubbed_json(text: str) -> str:
    """JSON with every text in it scrubbed, and otherwise as it is; what stands under "command" is a command line."""
    value = json.loads(text)
    wanted = _scrub(value)
    if wanted == value:
        return text
    for old, new in sorted(_changes(value, wanted), key=lambda pair: -len(pair[0])):
        text = text.replace(json.dumps(old), json.dumps(new)).replace(
            json.dumps(old, ensure_ascii=False), json.dumps(new)
        )
    # A key that is spelled like a text, or an escape of another writer: then the layout goes, and not the rule.
    return text if json.loads(text) == wanted else json.dumps(wanted, indent=2) + "\n"


def _of_word(word: str) -> str:
    name, equals, value = word.partition("=")
    return f"{name}={scrubbed(value)}" if equals and name.startswith("-") else scrubbed(word)


def _scrub(value: Any, key: str = "") -> Any:
    if isinstance(value, str):
        return scrubbed_command(value) if key in _COMMANDS else scrubbed(value)
    if isinstance(value, dict):
        return {name: _scrub(part, name) for name, part in value.items()}
    return [_scrub(part, key) for part in value] if isinstance(value, list) else value


def _changes(value: Any, wanted: Any) -> set[tuple[str, str]]:
    if isinstance(value, dict):
        return {pair for name in value for pair in _changes(value[name], wanted[name])}
    if isinstance(value, list):
        return {pair for ours, theirs in zip(value, wanted, strict=True) for pair in _changes(ours, theirs)}
    return {(value, wanted)} if isinstance(value, str) and value != wanted else set()


def _last(path: str) -> str:
    parts = [part for part in re.split(r"[/\\]", path) if part]
    return f".../{parts[-1]}"
