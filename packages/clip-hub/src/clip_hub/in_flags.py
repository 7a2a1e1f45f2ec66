"""What errors say of Python arguments, said of a command line: `--overwrite` instead of `overwrite=True`.

The packages below speak to people who call them. What this room leaves out: which errors there are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

from clip_core.errors import ClipError

__all__ = ["in_flags", "speaking_of_flags"]

_Rule = tuple[str, Callable[[re.Match[str]], str]]


def in_flags(message: str, known: Collection[str]) -> str:
    """`message` with the flags of a command, whose options are called `known`, in the place of Python's arguments."""

    def ema(found: re.Match[str]) -> str:
        return ("--ema" if found[1] == "True" else "--no-ema") if "ema" in known else "none of the two"

    rules: list[_Rule] = [
        (
            r"pass ema=True for the average or ema=False for the others",
            lambda _: (
                "pass --ema for the average or --no-ema for the others"
                if "ema" in known
                else "take one of them out first: clip-hub convert MODEL:FILE FOLDER --to bundle --ema (or --no-ema)"
            ),
        ),
        (r"\bema=(True|False)(?: or None)?", ema),
        (r"pass overwrite=True", lambda _: "pass --overwrite" if "overwrite" in known else "move it away"),
        (r"pass another cache_dir", lambda _: "pass another --cache-dir" if "cache_dir" in known else "set HF_HOME"),
        (r"pass a token", lambda _: "pass --token" if "token" in known else "set HF_TOKEN"),
        (r"\brevision=('[^']*')", lambda found: f"--revision {found[1]}"),
        (r"\bclip_hub\.list_tags\('([^']*)'\)", lambda found: f"`clip-hub list --filter {found[1]}:`"),
        (r"clip_hub\.list_pretrained\(\) lists every pair", lambda _: "`clip-hub list` shows every pair"),
        (r"clip_core\.list_models\(\) lists them all", lambda _: "`clip-hub list` shows those with weights"),
        (r"clip_core\.create\(NAME, pretrained='([^']*)'\)", lambda found: f"--model NAME, or NAME:{found[1]}"),
        (r"\bclip_(?:hub|core)\.load\b(?!\()", lambda _: "clip-hub"),
    ]
    for pattern, replacement in rules:
        message = re.sub(pattern, replacement, message)
    return message


@contextmanager
def speaking_of_flags(known: Collection[str]) -> Iterator[None]:
    """Let every `ClipError` that passes speak of the flags of a command whose options are called `known`."""
    try:
        yield
    except ClipError as error:
        told = in_flags(str(error), known)
        if told == str(error):
            raise
        raise ClipError(told) from error
