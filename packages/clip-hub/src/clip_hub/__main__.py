"""`python -m clip_hub` is the command `clip-hub`."""

from __future__ import annotations

import sys

from clip_hub.cli import main

if __name__ == "__main__":
    sys.exit(main())
