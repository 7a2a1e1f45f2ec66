"""The form of a row of the catalogue: what is known about one data set before a byte of it is read.

A field is None, or empty, where the fact is not known; nothing is guessed. What is not here: the rows themselves, one
module for each family, and whatever a data set says about itself when it is read (`clip_eval.wds`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from clip_eval.wds import Kind

__all__ = ["Entry", "Groups", "Type"]

Type = Literal["natural", "specialized", "structured", "retrieval", "compositional"]
"""The kind of pictures and questions: VTAB's three, as CLIP_benchmark assigns them, and two that are no classes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
    """What the metadata vector beside each label holds, and which of its numbers make the groups."""

    fields: tuple[str, ...]
    """Names of the F numbers, in their order."""
    by: tuple[tuple[str, ...], ...] = ()
    """Each entry is one way to group the images: by the values of these fields together."""
    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    """What the numbers of a field stand for, where that is known: value 0, 1, ..."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One data set of the catalogue."""

    name: str
    """As CLIP_benchmark calls it; DataComp's key where CLIP_benchmark does not have it."""
    title: str
    """For people; DataComp's and OpenCLIP's column name where they have one."""
    kind: Kind
    type: Type
    test: int | None
    """Size of the split `test`: images; for caption choice examples, for association riddles."""
    classes: int | None = None
    captions: int | None = None
    """Of the split `test`, all images together."""
    main_metric: str = "acc1"
    """The one number that tables show, a key of the record's metrics."""
    chance: float | None = None
    """What guessing scores on the main metric. Of accuracies it is DataComp's `random_score` where it gives one: the
    guess drawn as often as the class occurs; otherwise one over the number of classes."""
    prompts: str = ""
    """Name of its templates in `clip_eval.prompts`; empty: its own are read, or it has none at all."""
    names: str = ""
    """Name of its class names in `clip_eval.prompts`; empty: its own are read."""
    aliases: tuple[str, ...] = ()
    """Other names under which `find` knows it."""
    datacomp: str = ""
    """Its key in DataComp's task list; empty: not one of its 40 tasks."""
    on_hub: bool = False
    """Whether CLIP_benchmark's Hub account has it in the `wds` layout."""
    build: str = ""
    """The command that writes it, for those that come with the package."""
    source: str = ""
    """Where it comes from originally."""
    licence: str | None = None
    """As its owner states it; None: not known."""
    languages: tuple[str, ...] = ("en",)
    """Of its captions or class names, as the source spells them; a user's own come on top."""
    groups: Groups | None = None
    objectives: tuple[str, ...] = ()
    """Prefixes in front of its class names and templates, `objective:name`: as many classifications in one."""
    scored: bool = True
    """Whether DataComp counts it in its average of 38."""
    notes: tuple[str, ...] = ()
    """What a reader of the number should know."""

    @property
    def size(self) -> int | None:
        """The same as `test`, which most callers ask for."""
        return self.test

    @property
    def folder(self) -> str:
        """The name of its folder in the `wds` layout, `wds_vtab-cifar10`."""
        return f"wds_{self.name.replace('/', '-')}"

    @property
    def hub(self) -> str | None:
        """Hub data set in the `wds` layout, with the splits `train` (most of them) and `test`; None where unknown."""
        return f"clip-benchmark/{self.folder}" if self.on_hub else None

    @property
    def mirror(self) -> str | None:
        """DataComp's copy on the Hub, with the split `test` only; in the `wds` layout where `mirror_is_wds`."""
        if not self.datacomp:
            return None
        group, _, rest = self.datacomp.rpartition("/")
        if group in ("retrieval", "misc"):
            return f"nlphuji/{rest}"
        key = rest if group == "fairness" else self.datacomp
        return f"djghosh/wds_{key.replace('/', '-')}_test"

    @property
    def mirror_is_wds(self) -> bool:
        """Whether DataComp's copy can be read as it is; its retrieval sets and WinoGAViL have to be built first."""
        return bool(self.datacomp) and not self.datacomp.startswith(("retrieval/", "misc/"))

    @property
    def address(self) -> str | None:
        """Where to fetch it in the `wds` layout: the Hub data set, or else DataComp's copy; None: it is built."""
        return self.hub or (self.mirror if self.mirror_is_wds else None)
