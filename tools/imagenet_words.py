"""Write clip-hub's ImageNet names and templates as open_clip 3.3.0 has them: `python tools/imagenet_words.py`."""

from __future__ import annotations

from pathlib import Path

import open_clip  # type: ignore[import-untyped]

__all__ = ["main"]

_FOLDER = Path(__file__).parent.parent / "packages/clip-hub/src/clip_hub/drop_in"


def main() -> None:
    """Write both files."""
    names = list(open_clip.IMAGENET_CLASSNAMES)
    templates = [template("{}") for template in open_clip.OPENAI_IMAGENET_TEMPLATES]
    for name, lines in (("imagenet_classnames.txt", names), ("imagenet_templates.txt", templates)):
        (_FOLDER / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
