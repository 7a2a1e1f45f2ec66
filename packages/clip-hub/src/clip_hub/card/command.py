"""The command line that repeats a training run, from the settings that the run wrote down.

Flags are the settings' names, as clip-train makes them; what is None or False is not given. The folders of the machine
are left out, since the card is published.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from clip_hub.scrubbing import scrubbed

__all__ = ["training_command"]


def training_command(settings: Mapping[str, Any]) -> str:
    """`clip-train` with every setting as a flag, a line each, quoted for a POSIX shell."""
    lines = ["clip-train"]
    for name, value in settings.items():
        if value is None or value is False or value == "":
            continue
        flag = f"--{name.replace('_', '-')}"
        if value is True:
            lines.append(flag)
        elif isinstance(value, Mapping):
            words = [shlex.quote(f"{key}={_literal(part)}") for key, part in value.items()]
            lines.append(" ".join([flag, *words]))
        elif isinstance(value, list | tuple):
            lines.append(" ".join([flag, *(shlex.quote(scrubbed(str(part))) for part in value)]))
        else:
            lines.append(f"{flag} {shlex.quote(scrubbed(str(value)))}")
    return " \\\n    ".join(lines)


def _literal(value: Any) -> str:
    """As a Python literal, in which clip-train reads the values of `--aug-cfg`."""
    return repr(tuple(value)) if isinstance(value, list) else repr(value) if not isinstance(value, str) else value
