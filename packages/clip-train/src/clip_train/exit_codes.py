"""What a process leaves behind for the launcher, the scheduler and scripts, beside 0, and 2 for a user's mistake."""

from __future__ import annotations

__all__ = ["LOST_A_PROCESS", "STOPPED"]

STOPPED = 75
"""A signal stopped the run between two steps and it was saved: start it again to go on (sysexits' EX_TEMPFAIL)."""

LOST_A_PROCESS = 76
"""A process hung, died or could not be reached: start all of them again from the last checkpoint."""
