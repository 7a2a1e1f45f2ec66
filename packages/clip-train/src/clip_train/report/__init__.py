"""The report of a run, or of two beside each other: one page that loads nothing from the network."""

from __future__ import annotations

from clip_train.report.page import leave_report, render_report, write_report

__all__ = ["leave_report", "render_report", "write_report"]
