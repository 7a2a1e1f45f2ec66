"""Write clip-eval's class names and templates as CLIP_benchmark 1.6.2 has them.

    pip download clip_benchmark==1.6.2 --no-deps
    python tools/benchmark_words.py clip_benchmark-1.6.2-py2.py3-none-any.whl

ImageNet's English words are left out: they lie in clip-hub, and here it is only checked that both are the same. Of the
200-class variants of ImageNet the places of their classes among the 1000 are kept instead of the names.
"""

from __future__ import annotations

import ast
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

from clip_hub.drop_in.imagenet import IMAGENET_CLASSNAMES, OPENAI_IMAGENET_TEMPLATES

__all__ = ["main"]

_FOLDER = Path(__file__).parent.parent / "packages/clip-eval/src/clip_eval/prompts"
_INSIDE = "clip_benchmark/datasets"
_LANGUAGES = ("en", "it", "jp", "cn", "ar")
_ORDER = "all_imagenet_wordnet_ids"
_SUBSETS = {
    "imagenet-a": "imagenet_a_wnids",
    "imagenet-r": "imagenet_r_wnids",
    "imagenet-o": "imagenet_o_wnids",
}


def main(wheel: str) -> None:
    """Write a file for each language, and the places of the classes of ImageNet's variants."""
    with zipfile.ZipFile(wheel) as archive:
        for language in _LANGUAGES:
            names = json.loads(archive.read(f"{_INSIDE}/{language}_classnames.json"))
            templates = json.loads(archive.read(f"{_INSIDE}/{language}_zeroshot_classification_templates.json"))
            if language == "en":
                _check_imagenet(names.pop("imagenet1k"), templates.pop("imagenet1k"))
                # Sets that no suite has: Caltech-101 without VTAB's split, and a test's.
                del names["caltech101"], templates["dummy"]
            _write(f"{language}.json", {"classnames": names, "templates": templates})
        assigned = _lists(archive.read(f"{_INSIDE}/builder.py").decode(), (_ORDER, *_SUBSETS.values()))
    order = assigned[_ORDER]
    subsets = {
        name: [place for place, wnid in enumerate(order) if wnid in set(assigned[key])]
        for name, key in _SUBSETS.items()
    }
    (_FOLDER / "imagenet_subsets.json").write_text(
        "{\n" + ",\n".join(f'"{name}": {json.dumps(places)}' for name, places in subsets.items()) + "\n}\n",
        encoding="utf-8",
    )


def _check_imagenet(names: list[str], templates: list[str]) -> None:
    ours = [template("{c}") for template in OPENAI_IMAGENET_TEMPLATES]
    if list(IMAGENET_CLASSNAMES) != names or ours != templates:
        raise SystemExit("CLIP_benchmark's ImageNet words are no longer those of clip-hub.")


def _lists(source: str, wanted: tuple[str, ...]) -> dict[str, Any]:
    """The literal lists and sets that a module assigns to the wanted names, anywhere in it."""
    found: dict[str, Any] = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.List | ast.Set):
            for target in node.targets:
                if isinstance(target, ast.Name) and target.id in wanted:
                    found[target.id] = ast.literal_eval(node.value)
    return found


def _write(name: str, words: dict[str, dict[str, list[str]]]) -> None:
    text = json.dumps(words, ensure_ascii=False, indent=0)
    (_FOLDER / name).write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
