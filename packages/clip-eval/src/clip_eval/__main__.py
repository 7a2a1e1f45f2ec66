"""`python -m clip_eval` is the command `clip-eval`."""

from __future__ import annotations

import sys

from clip_eval.cli import main

__all__: list[str] = []

if __name__ == "__main__":
    sys.exit(main())
