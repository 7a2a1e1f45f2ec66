"""Flags by their beginning: what is unique in open_clip means the same flag here, whatever flags clip-train adds.

argparse alone would call `--save-f` ambiguous as soon as another flag begins so. What this room leaves out: flags that
do not exist, which the parser reports.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from clip_core.errors import ConfigError
from clip_train.peer_flags import MAIN, VERSION_3

__all__ = ["complete"]


def complete(words: Sequence[str], known: Iterable[str]) -> list[str]:
    """`words` of a command line with every beginning of a flag written out.

    A beginning that is unique in open_clip 3.3.0 is that flag; else one that is unique in open_clip's main; else one
    that is unique among `known`, all flags with their dashes. Raises `ConfigError` for a beginning of several.
    """
    names = list(known)
    return [_complete(word, names) if word.startswith("--") else word for word in words]


def _complete(word: str, known: Sequence[str]) -> str:
    start, equals, value = word.partition("=")
    # argparse takes words with a space for values.
    if start in known or start == "--" or " " in start:
        return word
    # open_clip's README itself spells one so.
    start = start.replace("_", "-")
    if start in known:
        return f"{start}{equals}{value}"
    for names in ([f"--{name}" for name in (*VERSION_3, "help")], [f"--{name}" for name in (*MAIN, "help")], known):
        found = [name for name in names if name.startswith(start)]
        if len(found) == 1:
            return f"{found[0]}{equals}{value}"
    found = sorted({name for name in known if name.startswith(start)})
    if found:
        raise ConfigError(f"{start} is the beginning of {', '.join(found)}: write one of them out.")
    return word
