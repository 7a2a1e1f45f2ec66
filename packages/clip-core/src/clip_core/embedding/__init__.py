"""Images in a folder or in tar files become one file of features: streamed, resumable, with its provenance beside it.

`embed` does it; `python -m clip_core embed` is its command line. What this room leaves out: data sets with labels or
captions, and searching among the features.
"""

from __future__ import annotations

from clip_core.embedding.run import Summary, embed

__all__ = ["Summary", "embed"]
