"""The house rules a machine can check, by what they look at: `source`, `package`, `text`. See tools/check_house.py."""

from __future__ import annotations

__all__: list[str] = []
