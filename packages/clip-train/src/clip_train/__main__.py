"""`python -m clip_train` is `clip-train`."""

from __future__ import annotations

import sys

from clip_train.cli import main

if __name__ == "__main__":
    sys.exit(main())
