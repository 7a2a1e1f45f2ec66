"""The report: one self-contained HTML page from evaluation records and, if there is one, the log of the training.

The page loads nothing: pictures are data URIs, figures are inline SVG. All text goes through the templates' escaping,
because captions and class names come from data. Layout and words are in `templates/`; each module prepares one part.
"""

from __future__ import annotations

from clip_eval.report.page import render_report, write_report

__all__ = ["render_report", "write_report"]
