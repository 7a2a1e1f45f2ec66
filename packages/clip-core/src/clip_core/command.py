"""What the command lines of all four packages share: how they log, how they fail, which exit code they leave.

A user's mistake (`ClipError`) becomes one message on stderr and exit code 2; an interrupt 130. Anything else is a
defect and keeps its traceback.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable

from clip_core.errors import ClipError

__all__ = ["run"]


def run(main: Callable[[], int | None], prog: str) -> int:
    """Call `main` and give the exit code: its own (None is 0), 2 after a `ClipError`, 130 after Ctrl-C."""
    if not logging.getLogger().handlers:
        logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s: %(message)s")
    try:
        return main() or 0
    except ClipError as error:
        print(f"{prog}: error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader of our output (head, less) has gone; nothing is left to say.
        sys.stderr.close()
        return 0
    except KeyboardInterrupt:
        print(f"{prog}: interrupted", file=sys.stderr)
        return 130
