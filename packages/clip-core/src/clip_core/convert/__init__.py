"""Checkpoints of other libraries: their names and shapes to OpenCLIP's, which are this package's, and back.

One file per format. Reading files safely is in `weights` and, for formats that need more, in the format's own file.
"""

from __future__ import annotations

__all__: list[str] = []
