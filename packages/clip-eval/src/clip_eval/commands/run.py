"""`clip-eval run`: one or more models on data sets, suites, folders and addresses; the pleasant way."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clip_core.errors import ConfigError, StorageError
from clip_eval.columns import aligned
from clip_eval.commands.encoding import add_encoding, make_encoder, model_label

if TYPE_CHECKING:
    from clip_eval.records import Record, SavedRecord

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
        from clip_eval.commands.dry_run import describe

        print("\n".join(describe(datasets, wanted, arguments)))
        return
    with Ranks.join() as ranks:
        if ranks.first:
            require_writable(arguments.output)
        for model in arguments.model:
            encoder = make_encoder(model, arguments, ranks)
            existing = arguments.output if arguments.skip_existing else None
            for _, record in run(encoder, datasets, wanted, model_name=model_label(model), existing=existing):
                if ranks.first:
                    _print(record, arguments.output)


def require_writable(folder: Path) -> None:
    """Make `folder` and see that a file can be written there, before hours of evaluation rather than after."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise StorageError(f"--output {folder} cannot be written ({error.strerror}); choose another folder.") from error


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
    return "\n".join([head, *aligned(rows, right=(1, 2, 3)), *notes])
