"""The files of one published repository, made in a private folder: every layout, the card, its figures and records.

A bundle and OpenCLIP's layout share one file of weights, since they have the same names of tensors; transformers has
its own, `model.safetensors`. What this room leaves out: the upload (`publish`), and what is refused (`screening`).
"""

from __future__ import annotations

import dataclasses
import fnmatch
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor

import clip_core
from clip_core import Bundle, ConfigError, get_config
from clip_core.building import DTYPES, Precision
from clip_core.convert.reading import OPENCLIP_CONFIG, OPENCLIP_WEIGHTS
from clip_core.errors import CheckpointMismatch, DataError
from clip_core.storage import CONFIG_FILE, WEIGHTS_FILE, config_text, open_checkpoint
from clip_core.tokenizer import TOKENIZER_FILES, MissingTokenizer, tokenizer_files
from clip_core.weights import read_weights
from clip_hub.card import (
    CardFacts,
    Description,
    Row,
    Run,
    check_card,
    draw,
    find_epochs,
    find_model,
    find_records,
    find_run,
    has_matplotlib,
    read_curves,
    read_rows,
    write_card,
)
from clip_hub.card.folder import EVALUATIONS
from clip_hub.hashes import sha256_of
from clip_hub.scrubbing import scrubbed_json
from clip_hub.soup import RECORD_FILE

__all__ = ["LAYOUT_FILES", "Staged", "check_source", "fingerprint", "stage", "write_facts"]

_log = logging.getLogger(__name__)

CARD = "README.md"
_TRANSFORMERS_CONFIG = "config.json"
_OTHER_WEIGHTS = "clip_model.safetensors"
"""The bundle's weights where transformers has `model.safetensors` and OpenCLIP cannot express the model."""
LAYOUT_FILES = frozenset(
    {CONFIG_FILE, WEIGHTS_FILE, OPENCLIP_CONFIG, OPENCLIP_WEIGHTS, _OTHER_WEIGHTS, _TRANSFORMERS_CONFIG}
    | {"preprocessor_config.json", "processor_config.json", "merges.txt", *TOKENIZER_FILES}
)
"""Every name that a layout may give a file here; those of another model would lie about this one."""
_IN_CARD = ("config.json", "metrics.jsonl", "summary.json")
_RUN_FILES = ("bundle", "config.json", "metrics.jsonl", "summary.json", EVALUATIONS)
_NEVER = ("*/__pycache__/*", "*/.cache/*", "*.DS_Store", ".gitattributes", "*/.gitattributes", "*.partial", "*.lock")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Staged:
    """What is to be published."""

    files: dict[str, Path]
    """Path in the repository -> file in the private folder."""
    layouts: dict[str, str]
    """Layout -> its file of weights."""
    missing: dict[str, str]
    """Layout that cannot express the model -> why."""
    left_out: list[str]
    """Files of the folder that are not published in any form."""
    in_card: list[str]
    """Files of a run that the card was written from; they are not published themselves."""


def check_source(
    path: str | os.PathLike[str], model: str | None = None, results: str | os.PathLike[str] | None = None
) -> None:
    """Find what `stage` would refuse, as far as that can be told without reading any weights; raises as `stage`."""
    home = Path(path)
    source = find_model(home)
    find_records(home, results)
    if model is not None:
        get_config(model)
        _require_file(source, model)
    if home.is_dir():
        find_run(home)
        if (home / CARD).is_file():
            check_card((home / CARD).read_text(encoding="utf-8"))


def stage(
    path: str | os.PathLike[str],
    repo: str,
    scratch: Path,
    *,
    model: str | None = None,
    results: str | os.PathLike[str] | None = None,
    description: Description | None = None,
    exclude: Sequence[str] = (),
) -> Staged:
    """Fill the empty folder `scratch` with what is published of `path` as `repo`.

    Args:
        path: a bundle or another folder that `clip_core.load` reads, a training run's folder, or a file of weights.
        model: the architecture, for a file that does not say it.
        results: evaluation records; default `eval/` inside the folder.
        exclude: patterns of files of the folder that are left out.

    Raises:
        ConfigError, CheckpointMismatch, DataError: what is there cannot be read, or does not fit together.
    """
    check_source(path, model, results)
    home = Path(path)
    before = fingerprint(home)
    facts, files, left_out = _contents(home, repo, scratch, model, results, description, exclude)
    in_card = [name for name in left_out if facts.run is not None and name in _IN_CARD]
    if CARD in files:
        check_card(files[CARD].read_text(encoding="utf-8"))
    else:
        files[CARD] = scratch / CARD
        files[CARD].write_text(write_card(facts), encoding="utf-8")
    if fingerprint(home) != before:
        raise ConfigError(f"{path} changed while it was read; is a training or a copy still running? Try again.")
    layouts, missing = dict(facts.layouts), dict(facts.missing)
    return Staged(
        files=dict(sorted(files.items())),
        layouts=layouts,
        missing=missing,
        left_out=[name for name in left_out if name not in in_card],
        in_card=in_card,
    )


def write_facts(
    path: str | os.PathLike[str],
    repo: str,
    scratch: Path,
    *,
    model: str | None = None,
    results: str | os.PathLike[str] | None = None,
    description: Description | None = None,
) -> tuple[CardFacts, dict[str, Path]]:
    """What a card of `path` says, and the figures of it, drawn into `scratch`: path in the repository -> file."""
    facts, files, _ = _contents(Path(path), repo, scratch, model, results, description, ("*",))
    return facts, {name: file for name, file in files.items() if name in facts.figures}


def _contents(
    home: Path,
    repo: str,
    scratch: Path,
    model: str | None,
    results: str | os.PathLike[str] | None,
    description: Description | None,
    exclude: Sequence[str],
) -> tuple[CardFacts, dict[str, Path], list[str]]:
    source = find_model(home)
    run = find_run(home) if home.is_dir() else None
    bundle, precision = _read(source, model)
    files, layouts, missing = _write_layouts(bundle, repo, scratch / "model")
    records = find_records(home, results)
    rows = read_rows(records, bundle.model.state_dict())
    for record in records:
        files[f"evaluation/{record.name}"] = _scrubbed_copy(record, scratch / "evaluation" / record.name)
    extras, left_out = _extras(home, run is not None, exclude, {record.resolve() for record in records})
    for name in extras:
        copy = _scrubbed_copy if name == RECORD_FILE else _copy
        files[name] = copy(home / name, scratch / "extras" / name)
    figures = _draw(scratch / "figures", run, rows, read_curves(find_epochs(home)) if run is not None else {})
    files |= {f"figures/{figure.name}": figure for figure in figures}
    facts = CardFacts(
        repo=repo,
        config=bundle.config,
        parameters=sum(parameter.numel() for parameter in bundle.model.parameters()),
        precision=str(DTYPES[precision]).removeprefix("torch."),
        layouts=layouts,
        missing=missing,
        run=run,
        rows=rows,
        figures=[f"figures/{figure.name}" for figure in figures],
        description=description or Description(),
    )
    return facts, files, left_out


def _draw(
    folder: Path, run: Run | None, rows: Sequence[Row], curves: Mapping[str, Sequence[tuple[int, Row]]]
) -> list[Path]:
    if run is None and not rows:
        return []
    if not has_matplotlib():
        _log.warning("the card gets no figures: they need matplotlib, pip install 'clip-hub[card]'")
        return []
    return draw(folder, run, rows, curves)


def _read(source: Path, model: str | None) -> tuple[Bundle, Precision]:
    """The model in `source` in the dtype that its file has, with every weight finite."""
    if source.is_file() and model is not None:
        precision = _precision(read_weights(source).values())
        bundle = clip_core.create(model, source, precision=precision)
    else:
        if model is not None:
            _require_file(source, model)
        held = open_checkpoint(source)
        precision = _precision(held.tensors(held.config).values()) if held.config is not None else "fp32"
        bundle = clip_core.load(source, precision=precision)
    if isinstance(bundle.tokenizer, MissingTokenizer):
        raise ConfigError(f"{source} lacks the files of its tokenizer, so nobody could use its text tower; add them.")
    for name, value in bundle.model.state_dict().items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise CheckpointMismatch(f"The weights {name} of {source} are not finite; there is nothing to publish.")
    return bundle, precision


def _require_file(source: Path, model: str) -> None:
    if not source.is_file():
        raise ConfigError(f"{source} is a folder and says which model it holds; leave out --model {model}.")


def _precision(tensors: Iterable[Tensor]) -> Precision:
    """That of all weights; fp32, which holds every value, where they differ."""
    found = {value.dtype for value in tensors if value.is_floating_point() and value.ndim}
    names: tuple[Precision, ...] = get_args(Precision)
    return next((name for name in names if found == {DTYPES[name]}), "fp32")


def _write_layouts(bundle: Bundle, repo: str, scratch: Path) -> tuple[dict[str, Path], dict[str, str], dict[str, str]]:
    """(files by name, layout -> weights, layout -> why not) of every layout that can express the model."""
    files: dict[str, Path] = {}
    layouts: dict[str, str] = {}
    missing: dict[str, str] = {}
    theirs = {"open_clip": OPENCLIP_WEIGHTS, "transformers": WEIGHTS_FILE}
    for layout, weights in theirs.items():
        try:
            folder = clip_core.export(bundle, scratch / layout, layout)  # type: ignore[arg-type]
        except ConfigError as error:
            missing[layout] = str(error)
            continue
        files |= {file.name: file for file in folder.iterdir()}
        layouts[layout] = weights
    if "open_clip" in layouts:
        _name_own_tokenizer(files[OPENCLIP_CONFIG], repo)
        own = OPENCLIP_WEIGHTS
    else:
        own = _OTHER_WEIGHTS if "transformers" in layouts else WEIGHTS_FILE
        files[own] = clip_core.save(bundle, scratch / "bundle") / WEIGHTS_FILE
    files[CONFIG_FILE] = scratch / CONFIG_FILE
    files[CONFIG_FILE].write_text(config_text(bundle.config, own), encoding="utf-8")
    for vocabulary in tokenizer_files(bundle.tokenizer):
        files.setdefault(vocabulary.name, _copy(vocabulary, scratch / vocabulary.name))
    return files, {"bundle": own, **layouts}, missing


def _name_own_tokenizer(path: Path, repo: str) -> None:
    """OpenCLIP fetches a tokenizer by its repository: let that be this one, which has its files."""
    content = json.loads(path.read_text(encoding="utf-8"))
    if content["model_cfg"]["text_cfg"].get("hf_tokenizer_name"):
        content["model_cfg"]["text_cfg"]["hf_tokenizer_name"] = repo
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _extras(home: Path, is_run: bool, exclude: Sequence[str], records: Collection[Path]) -> tuple[list[str], list[str]]:
    """(files of the folder that are published beside the model, those that are not); the model and `records` are."""
    if not home.is_dir():
        return [], []
    taken, left_out = [], []
    for file in sorted(path for path in home.rglob("*") if path.is_file()):
        name = file.relative_to(home).as_posix()
        inside, _, rest = name.partition("/")
        of_model = inside == "bundle" and rest in LAYOUT_FILES if is_run else name in LAYOUT_FILES
        if of_model or file.resolve() in records:
            continue
        unwanted = any(
            fnmatch.fnmatch(f"/{name}", pattern) or fnmatch.fnmatch(name, pattern) for pattern in (*_NEVER, *exclude)
        )
        # Of a run the metrics and the log are in the card; records are published as `evaluation/`.
        of_run = is_run and not (name == CARD or name.upper().startswith("LICEN"))
        if unwanted or of_run or name.startswith(f"{EVALUATIONS}/"):
            left_out.append(name)
        else:
            taken.append(name)
    return taken, left_out


def _copy(source: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    return target


def _scrubbed_copy(source: Path, target: Path) -> Path:
    """JSON without the folders of this machine."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.write_text(scrubbed_json(source.read_text(encoding="utf-8")), encoding="utf-8")
    except ValueError as error:
        raise DataError(f"{source} is not valid JSON: {error}.") from error
    return target


def fingerprint(path: Path) -> str:
    """A hash over the names and bytes of a file or a folder; of a run, over what is read of it."""
    parts = [path / name for name in _RUN_FILES] if find_model(path) != path else [path]
    files = sorted(file for part in parts for file in (part.rglob("*") if part.is_dir() else [part]) if file.is_file())
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(path)} {sha256_of(file)}\n".encode())
    return digest.hexdigest()
