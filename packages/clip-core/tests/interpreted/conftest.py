"""Tests of Triton's programs on a CPU. Triton chooses its interpreter when it is imported, so these run in a process
of their own, which the tests beside this folder start (tools/interpreted.py).
"""

from __future__ import annotations

import os

collect_ignore_glob = [] if os.environ.get("TRITON_INTERPRET") == "1" else ["*"]
