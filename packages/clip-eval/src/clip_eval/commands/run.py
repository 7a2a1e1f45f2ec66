"""`clip-eval run`: one or more models on data sets, suites, folders and addresses; the pleasant way."""

from __future__ import annotations

import argparse
import functools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clip_core.errors import ConfigError, StorageError
from clip_eval.commands.encoding import add_encoding, make_encoder

if TYPE_CHECKING:
    from clip_eval.records import Record, SavedRecord
    from clip_eval.running import Wanted
    from clip_eval.selection import Selected
    from clip_eval.wds import WdsDataset

__all__ = ["add", "require_writable"]

_EXAMPLES = """\
examples:
  clip-eval run data/digits data/digit_scenes --model runs/demo/bundle --output results
  clip-eval run vtab+ retrieval --model ViT-B-32:laion2b_s34b_b79k --data /datasets --output results
  clip-eval run imagenet1k --model xlm-roberta-base-ViT-B-32:laion5b_s13b_b90k --language it jp cn --output results
  clip-eval run vtab/cifar100 --task zero_shot_classification linear_probe --model runs/a/bundle --output results
  torchrun --nproc-per-node 8 -m -- clip_eval run datacomp --model ViT-L-14:openai --device cuda --output results
"""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the subcommand."""
    run = commands.add_parser(
        "run",
        help="evaluate models on data sets or suites",
        description="Evaluates each model on each data set: zero-shot classification, retrieval or what else the data "
        "set is made for. Prints a table and writes one JSON record for each. Images are encoded once per model and "
        "kept; whatever is asked of them later takes seconds.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    run.add_argument(
        "datasets",
        nargs="+",
        metavar="DATASET",
        help="a suite (vtab+), a name (vtab/cifar10; `clip-eval list`), a folder, an address (hf://datasets/org/name, "
        "s3://...), or a text file with one of these per line",
    )
    run.add_argument(
        "--model",
        required=True,
        nargs="+",
        metavar="MODEL",
        help='a bundle folder, a name such as "ViT-B-32:laion2b_s34b_b79k", or a Hub repository',
    )
    run.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder for the records")
    run.add_argument("--data", metavar="DIR", help="folder that holds the data sets; others are fetched from the Hub")
    what = run.add_argument_group("what is asked")
    what.add_argument(
        "--task",
        nargs="+",
        default=[],
        metavar="TASK",
        help="zero_shot_classification, retrieval, linear_probe, "
        "caption_choice, captioning, association (default: what the data set is made for)",
    )
    what.add_argument(
        "--language",
        nargs="+",
        default=[None],
        metavar="LANG",
        help="of class names and prompts, or of captions",
    )
    what.add_argument(
        "--words",
        type=Path,
        metavar="DIR",
        help="your own {lang}_classnames.json and {lang}_zeroshot_classification_templates.json",
    )
    what.add_argument("--split", default="test", help="which split to read (%(default)s)")
    what.add_argument("--ks", type=int, nargs="+", default=[1, 5, 10], metavar="K", help="retrieval: recall@K (1 5 10)")
    what.add_argument("--train-split", default="train", metavar="SPLIT", help="linear probe: fitted on (%(default)s)")
    what.add_argument(
        "--validation-split", metavar="SPLIT", help="linear probe: weight decay chosen on (default: a part of train)"
    )
    what.add_argument("--fewshot", type=int, metavar="K", help="linear probe: K pictures of each class (default: all)")
    what.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="N", help="linear probe: one fit each (0)")
    what.add_argument(
        "--allow-duplicate-classes",
        action="store_true",
        help="accept class names that occur twice; their ties are in the record. Known data sets may have them",
    )
    what.add_argument("--any-size", action="store_true", help="accept another number of samples than is published")
    how = run.add_argument_group("how")
    add_encoding(how)
    how.add_argument(
        "--features",
        default="auto",
        metavar="DIR",
        help="where features are kept; none keeps none (default: clip-eval/features in the folder of HF_HOME)",
    )
    how.add_argument(
        "--feature-dtype", choices=("float32", "float16"), default="float32", help="of kept features (%(default)s)"
    )
    how.add_argument("--cache-dir", type=Path, metavar="DIR", help="where fetched data sets are kept")
    how.add_argument("--skip-existing", action="store_true", help="do not repeat what --output has a record of")
    how.add_argument("--dry-run", action="store_true", help="say what would be read, how much and how long, and stop")
    how.add_argument("--quiet", action="store_true", help="no progress bars")
    run.set_defaults(action=_run)


def _run(arguments: argparse.Namespace) -> None:
    from clip_eval.evaluation import TASKS, Options
    from clip_eval.processes import Ranks
    from clip_eval.running import Wanted, run
    from clip_eval.selection import select

    unknown = [task for task in arguments.task if task not in TASKS]
    if unknown:
        raise ConfigError(f"--task {unknown[0]}: allowed: {', '.join(TASKS)}.")
    datasets = select(arguments.datasets, root=arguments.data)
    wanted = Wanted(
        tasks=tuple(arguments.task),
        languages=tuple(arguments.language),
        options=Options(ks=tuple(arguments.ks), fewshot_k=arguments.fewshot, seeds=tuple(arguments.seeds)),
        words=arguments.words,
        split=arguments.split,
        train_split=arguments.train_split,
        validation_split=arguments.validation_split,
        allow_duplicate_classes=arguments.allow_duplicate_classes,
        any_size=arguments.any_size,
        cache_dir=arguments.cache_dir,
    )
    if arguments.dry_run:
        _describe(datasets, wanted, arguments)
        return
    with Ranks.join() as ranks:
        if ranks.first:
            require_writable(arguments.output)
        for model in arguments.model:
            encoder = make_encoder(model, arguments, ranks)
            existing = arguments.output if arguments.skip_existing else None
            for _, record in run(encoder, datasets, wanted, model_name=_model_label(model), existing=existing):
                if ranks.first:
                    _print(record, arguments.output)


def _model_label(model: str) -> str:
    """A name as it was given; of a folder its last two parts, because one called "bundle" says little."""
    path = Path(model)
    return "/".join(path.resolve().parts[-2:]).lstrip("/") if path.exists() else model


def require_writable(folder: Path) -> None:
    """Make `folder` and see that a file can be written there, before hours of evaluation rather than after."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise StorageError(f"--output {folder} cannot be written ({error.strerror}); choose another folder.") from error


def _describe(datasets: Sequence[Selected], wanted: Wanted, arguments: argparse.Namespace) -> None:
    """Print what would be read and how long encoding would take, and fetch no shard and no weights for it."""
    from clip_eval.places import describe_dataset
    from clip_eval.places.address import without_secrets
    from clip_eval.running import objectives_of, open_selected

    rows = [("data set", "kind", "images", "contents", "size", "to fetch", "from")]
    here: list[WdsDataset] = []
    for selected in datasets:
        facts = describe_dataset(selected.address, split=wanted.split, cache_dir=wanted.cache_dir)
        left = facts.bytes - facts.bytes_cached
        fetched = "-" if left == 0 else _megabytes(left)
        costs = (_megabytes(facts.bytes), fetched, without_secrets(selected.address))
        if facts.folder is None:
            rows.append((selected.name, *_expected(selected, facts.samples), *costs))
            continue
        names = objectives_of(selected, functools.partial(Path, facts.folder))
        asked = [open_selected(selected, wanted, objective=name) for name in names]
        here.append(asked[0])  # the others ask about the same images
        for number, dataset in enumerate(asked):
            name = f"{selected.name} ({dataset.objective})" if dataset.objective else selected.name
            rows.append((name, *_contents(dataset), *(costs if number == 0 else ("", "", ""))))
    print(_aligned(rows, right=(2, 4, 5)))
    for model in arguments.model:
        print(_outlook(model, here, arguments))


def _contents(dataset: WdsDataset) -> tuple[str, str, str]:
    """Kind, images and what belongs to them, of a data set that is here."""
    captions = f"{sum(map(len, dataset.captions)):,} captions"
    contents = {
        "retrieval": captions,
        "caption_choice": captions,
        "association": f"{len(dataset.associations):,} riddles",
    }.get(dataset.kind, f"{len(dataset.classnames):,} classes, {len(dataset.templates)} prompts each")
    return dataset.kind, f"{len(dataset.samples):,}", contents


def _expected(selected: Selected, samples: int | None) -> tuple[str, str, str]:
    """The same of one that would be fetched, as far as it is known."""
    entry = selected.entry
    count = samples if samples is not None or entry is None else entry.size
    contents = f"{entry.classes:,} classes" if entry is not None and entry.classes is not None else "?"
    return "?" if entry is None else entry.kind, "?" if count is None else f"{count:,}", contents


def _outlook(model: str, here: Sequence[WdsDataset], arguments: argparse.Namespace) -> str:
    """How long the images that are on this machine would take."""
    from clip_eval.processes import Ranks

    if not Path(model).exists():
        return f"{model}: no folder here; weights are not fetched for a dry run, so no time is estimated"
    encoder = make_encoder(model, arguments, Ranks())
    seconds, images, found = 0.0, 0, 0
    for dataset in here:
        outlook = encoder.describe(dataset)
        images, found = images + outlook.images, found + outlook.images_found
        if outlook.images_found < outlook.images:
            seconds += encoder.estimate_seconds(dataset) * (1 - outlook.images_found / outlook.images)
    device = encoder.bundle.model.logit_scale.device
    return (
        f"{_model_label(model)}: of {images:,} images on this machine {found:,} were encoded before; the others take "
        f"about {_duration(seconds)} on {device}"
    )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count < 1e9 else f"{count / 1e9:,.1f} GB"


def _print(record: Record | SavedRecord, output: Path) -> None:
    """Save a new record, and print its numbers: name, value, 95 % interval, number of queries."""
    from clip_eval.records import SavedRecord

    if isinstance(record, SavedRecord):
        print(f"{record.dataset} ({record.task.replace('_', ' ')}): there already\nrecord: {record.path}\n")
        return
    path = record.save(output)
    print(_numbers(record))
    print(f"record: {path}\n", flush=True)


def _numbers(record: Record) -> str:
    rows = [("metric", "value", "95 % interval", "N")]
    for name, metric in record.result.metrics.items():
        form = "{:.1f}" if name.endswith("rank") else "{:.4f}"
        interval = f"{form.format(metric.low)} - {form.format(metric.high)}"
        rows.append((name, form.format(metric.value), interval, str(metric.n)))
    settings: dict[str, Any] = record.facts.get("settings", {})
    about = [record.result.task.replace("_", " ")]
    about += [str(settings[key]) for key in ("objective", "language") if settings.get(key)]
    head = f"{record.dataset.name} ({', '.join(about)}), {record.facts['model']['name']}"
    if record.excluded:
        head += f", {len(record.excluded)} of {len(record.dataset.samples)} images left out: they do not decode"
    ties = {name: share for name, share in record.result.ties.items() if share > 0}
    notes = [f"ties: {share:.1%} of the {name} queries; the record has the bounds" for name, share in ties.items()]
    return "\n".join([head, _aligned(rows, right=(1, 2, 3)), *notes])


def _aligned(rows: Sequence[Sequence[str]], *, right: Sequence[int]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = (
            text.rjust(widths[place]) if place in right else text.ljust(widths[place]) for place, text in enumerate(row)
        )
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
