"""What the command line shows of a repository that no row of the registry describes: read from its small files.

No weights are fetched. What this room leaves out: the registry's own rows (`listing`), and the card that a repository
is published with (`card`).
"""

from __future__ import annotations

import dataclasses
import os
import re
import tempfile
from pathlib import Path
from typing import Any

from clip_core import ClipConfig
from clip_core.building import lay_out
from clip_core.convert.reading import FILE_SUFFIXES, OPENCLIP_CONFIG
from clip_core.errors import ClipError
from clip_core.storage import CONFIG_FILE, open_checkpoint
from clip_hub.contents import repository_files
from clip_hub.download import fetch
from clip_hub.listing import laid_out, model_facts
from clip_hub.repository import RepositoryName
from clip_hub.transfer import Token

__all__ = ["RepositoryFacts", "look_at"]

_TRANSFORMERS_CONFIG = "config.json"
_LAYOUTS = {CONFIG_FILE: "a bundle", OPENCLIP_CONFIG: "OpenCLIP", _TRANSFORMERS_CONFIG: "transformers"}
_CONFIGS = (*_LAYOUTS, "preprocessor_config.json", "processor_config.json")
_CARD = "README.md"
_LARGEST = 4 << 20
"""Bytes of a settings file, at most; what is larger is none."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RepositoryFacts:
    """What a repository says of itself."""

    name: RepositoryName
    commit: str
    files: int
    size: int
    """Bytes of all files."""
    layouts: tuple[str, ...]
    weights: dict[str, int]
    """Name -> bytes."""
    licence: str | None
    config: ClipConfig | None
    problem: str | None
    """Why `clip_hub.load` cannot read the model."""
    parameters: int | None

    def card(self) -> str:
        """It as text; ends without a newline."""
        load = self.name.repo + ("" if self.name.revision == "main" else f"@{self.name.revision}")
        weights = ", ".join(f"{name} ({size / 1e6:,.1f} MB)" for name, size in self.weights.items())
        sections = {
            "Repository": [
                ("address", f"https://huggingface.co/{self.name.repo}, revision {self.name.revision}"),
                ("commit", self.commit),
                ("files", f"{self.files}, {self.size / 1e6:,.1f} MB"),
                ("layouts", ", ".join(self.layouts) or "none that is known here"),
                ("weights", weights or "none"),
                ("licence", self.licence or "its card states none"),
            ]
        }
        if self.config is None:
            lines = laid_out(load, sections, self.problem).split("\n")
            return "\n".join(lines[: lines.index("To load it") - 1])
        sections["Model"] = [("parameters", f"{(self.parameters or 0) / 1e6:.2f} M"), *model_facts(self.config)]
        return laid_out(load, sections)

    def to_json(self) -> dict[str, Any]:
        """It as plain values."""
        told: dict[str, Any] = {"repo": self.name.repo, "revision": self.name.revision}
        told |= {"commit": self.commit, "files": self.files, "size": self.size, "layouts": list(self.layouts)}
        told |= {"weights": self.weights, "licence": self.licence, "problem": self.problem}
        return told | {"parameters": self.parameters, "config": None if self.config is None else self.config.to_json()}


def look_at(
    name: RepositoryName, *, cache_dir: str | os.PathLike[str] | None = None, token: Token = None
) -> RepositoryFacts:
    """What the repository `name` holds; its settings are fetched, its weights are not.

    Raises:
        DownloadError: it could not be asked.
    """
    held = repository_files(name.repo, revision=name.revision, cache_dir=cache_dir, token=token)
    sizes = {file.path: file.size for file in held.files if "/" not in file.path}
    weights = {path: size for path, size in sizes.items() if path.endswith(FILE_SUFFIXES)}

    def read(path: str) -> bytes:
        place = fetch(name.repo, [path], revision=held.commit, cache_dir=cache_dir, token=token)
        return place.read_bytes()

    config: ClipConfig | None = None
    problem: str | None = f"It states no model: it has neither {', nor '.join(_LAYOUTS)}."
    with tempfile.TemporaryDirectory(prefix="clip-hub-") as scratch:
        folder = Path(scratch)
        for path in sizes:
            if path in weights or path.endswith(".index.json"):
                (folder / path).touch()  # in the place of the weights: what is said of them is read without them
            elif path in _CONFIGS and sizes[path] <= _LARGEST:
                (folder / path).write_bytes(read(path))
        if any((folder / path).exists() for path in _LAYOUTS):
            try:
                config, problem = open_checkpoint(folder).config, None
            except ClipError as error:
                problem = str(error).replace(f"{scratch}{os.sep}", "").replace(scratch, name.repo)
    parameters = None if config is None else sum(value.numel() for value in lay_out(config).parameters())
    return RepositoryFacts(
        name=name,
        commit=held.commit,
        files=len(held.files),
        size=sum(file.size for file in held.files),
        layouts=tuple(layout for path, layout in _LAYOUTS.items() if path in sizes),
        weights=weights,
        licence=_licence(read(_CARD)) if sizes.get(_CARD, _LARGEST + 1) <= _LARGEST else None,
        config=config,
        problem=problem,
        parameters=parameters,
    )


def _licence(card: bytes) -> str | None:
    """What the head of a model card states."""
    head = re.match(r"---\s*\n(.*?)\n---", card.decode("utf-8", errors="replace"), re.DOTALL)
    found = re.search(r"^license:\s*(\S+)", head[1], re.MULTILINE) if head else None
    return found[1].strip("'\"") if found else None
