"""The release of OpenCLIP whose names and arguments these are."""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "3.3.0"
