"""What a model card is written from: the model, its files, the run and its results, and what only a person can say."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from clip_core import ClipConfig, get_config, list_models
from clip_core.convert.checkpoint import differences
from clip_core.errors import ConfigError
from clip_hub.card.folder import Run
from clip_hub.card.results import Row

__all__ = ["LICENCES", "CardFacts", "Description", "architecture_of"]

_LICENCES = (
    "afl-3.0 agpl-3.0 apache-2.0 apple-amlr apple-ascl artistic-2.0 bigcode-openrail-m bigscience-bloom-rail-1.0 "
    "bigscience-openrail-m bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 c-uda cc cc-by-2.0 cc-by-2.5 "
    "cc-by-3.0 cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 "
    "cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 cdla-permissive-1.0 "
    "cdla-permissive-2.0 cdla-sharing-1.0 creativeml-openrail-m ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 "
    "gemma gfdl gpl gpl-2.0 gpl-3.0 h-research intel-research isc lgpl lgpl-2.1 lgpl-3.0 lgpl-lr llama2 llama3 "
    "llama3.1 llama3.2 llama3.3 lppl-1.3c mit mpl-2.0 ms-pl ncsa odbl odc-by ofl-1.1 openrail openrail++ osl-3.0 other "
    "pddl postgresql unknown unlicense wtfpl zlib"
)
LICENCES = frozenset(_LICENCES.split())
"""The Hub's names of licences (its documentation, "Licenses")."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Description:
    """What no file of a run says. What is not given is not guessed: the card says that it is not stated."""

    title: str = ""
    """Default: the repository's name."""
    summary: str = ""
    """A sentence or a paragraph on what this model is."""
    licence: str = ""
    """One of `LICENCES`, as "mit"."""
    training_data: str = ""
    """What the model was trained on, in words."""
    languages: Sequence[str] = ()
    """Of the captions, as "en"."""
    authors: str = ""
    acknowledgements: str = ""

    def __post_init__(self) -> None:
        if self.licence and self.licence not in LICENCES:
            raise ConfigError(
                f"licence is {self.licence!r}, which the Hub does not know; say mit, apache-2.0, ... or other."
            )
        strange = next((code for code in self.languages if not (code.isalpha() and 2 <= len(code) <= 3)), None)
        if strange is not None:
            raise ConfigError(f"languages has {strange!r}; allowed: codes of two or three letters, as en or it.")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class CardFacts:
    """Everything that one card says."""

    repo: str
    """"org/name"."""
    config: ClipConfig
    parameters: int
    precision: str
    """Of the stored weights: "float32"."""
    layouts: Mapping[str, str]
    """Layouts in the repository -> their file of weights: "bundle", "open_clip", "transformers"."""
    missing: Mapping[str, str]
    """Layouts that cannot express the model -> why."""
    run: Run | None = None
    rows: Sequence[Row] = ()
    figures: Sequence[str] = ()
    """Paths inside the repository, of those that `figures.draw` makes."""
    description: Description = dataclasses.field(default_factory=Description)

    @property
    def title(self) -> str:
        """What the card calls the model."""
        return self.description.title or self.repo.rpartition("/")[2]


def architecture_of(facts: CardFacts) -> str:
    """The name under which clip-core builds this model, or "" where it has none."""
    if facts.run is not None and facts.run.settings.get("model") in list_models():
        return str(facts.run.settings["model"])
    same = (name for name in list_models() if not _differs(facts.config, get_config(name)))
    return next(same, "")


def _differs(config: ClipConfig, preset: ClipConfig) -> bool:
    return any(not key.startswith("preprocess.") for key in differences(config, preset))
