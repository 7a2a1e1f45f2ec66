"""`clip-eval eval`: CLIP_benchmark's command line, flag for flag, and the JSON files that it writes.

What its commands ask for is done by the same code as `clip-eval run`. Where a flag has no sense here, it is refused or
said to change nothing; none is ignored in silence.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from clip_core.errors import ConfigError, StorageError

if TYPE_CHECKING:
    from clip_core import Bundle
    from clip_eval.evaluation import Options, Task
    from clip_eval.processes import Ranks
    from clip_eval.records import Record
    from clip_eval.selection import Selected

__all__ = ["add"]

_log = logging.getLogger(__name__)

_TASKS: dict[str, Task] = {
    "zeroshot_classification": "zero_shot_classification",
    "zeroshot_retrieval": "retrieval",
    "linear_probe": "linear_probe",
    "captioning": "captioning",
    "image_caption_selection": "caption_choice",
}
_ROOT = "root"
_OUTPUT = "{dataset}_{pretrained}_{model}_{language}_{task}.json"
_NAMES: dict[str, str] = {task: name for name, task in _TASKS.items()}
_COLLECTIONS = {
    "openclip_base": (
        ("ViT-B-32-quickgelu", "laion400m_e32"),
        ("ViT-B-32", "laion2b_e16"),
        ("ViT-B-32", "laion2b_s34b_b79k"),
        ("ViT-B-16", "laion400m_e32"),
        ("ViT-B-16-plus-240", "laion400m_e32"),
        ("ViT-L-14", "laion400m_e32"),
        ("ViT-L-14", "laion2b_s32b_b82k"),
        ("ViT-H-14", "laion2b_s32b_b79k"),
        ("ViT-g-14", "laion2b_s12b_b42k"),
    ),
    "openclip_multilingual": (
        ("xlm-roberta-base-ViT-B-32", "laion5b_s13b_b90k"),
        ("xlm-roberta-large-ViT-H-14", "frozen_laion5b_s13b_b90k"),
    ),
    "openai": (
        ("ViT-B-32", "openai"),
        ("ViT-B-16", "openai"),
        ("ViT-L-14", "openai"),
        ("ViT-L-14-336", "openai"),
    ),
}
_REFUSED = {
    "save_clf": "clip-eval keeps the features of prompts instead (--feature_root), so a second run is as quick",
    "load_clfs": "averaging the classifiers of several models is not built; evaluate each model",
    "annotation_file": "captions are read from the data set's own shards; build one with `clip-eval build`",
}
_WITHOUT_EFFECT = {
    "fewshot_epochs": "the probe is solved to its optimum, so there are no epochs",
    "fewshot_lr": "the probe is solved to its optimum, so there is no learning rate",
    "distributed": "the processes that torchrun or srun started share each data set anyway",
    "skip_load": "features that are there already are found anyway",
}


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the subcommand."""
    parser = commands.add_parser(
        "eval",
        help="CLIP_benchmark's command line, unchanged",
        description="Takes the commands of CLIP_benchmark as they are and writes its JSON files, with the whole record "
        "under 'clip_eval'. `clip-eval run` does the same with fewer flags and more numbers.",
        epilog="example:\n  clip-eval eval --dataset wds/vtab/cifar10 --task zeroshot_classification --model ViT-B-32 "
        "--pretrained laion2b_s34b_b79k\n    --dataset_root 'https://huggingface.co/datasets/clip-benchmark/"
        "wds_{dataset_cleaned}/tree/main' --output '{dataset}.json'",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=True,
    )
    parser.add_argument("--dataset", nargs="+", default=["cifar10"], help="names, suites, or files with names")
    parser.add_argument("--dataset_root", default=_ROOT, help="folder or address, {dataset} and {dataset_cleaned}")
    parser.add_argument("--split", "--test_split", dest="split", default="test", help="(%(default)s)")
    parser.add_argument("--train_split", nargs="+", default=["train"], help="of each data set (train)")
    validation = parser.add_mutually_exclusive_group()
    validation.add_argument("--val_split", nargs="+", help="of each data set, for the linear probe")
    validation.add_argument("--val_proportion", nargs="+", type=float, help="part of the training split instead")
    parser.add_argument("--model", nargs="+", default=["ViT-B-32-quickgelu"], help="architectures")
    parser.add_argument("--pretrained", nargs="+", default=["laion400m_e32"], help="tags or weight files")
    parser.add_argument(
        "--pretrained_model",
        nargs="+",
        default=[],
        metavar="MODEL,TAG",
        help="pairs, instead of --model and --pretrained; openai, openclip_base, openclip_multilingual, openclip_all, "
        "or a file with one pair per line",
    )
    parser.add_argument("--task", default="auto", choices=(*_TASKS, "auto"), help="(%(default)s)")
    parser.add_argument(
        "--no_amp",
        dest="amp",
        action="store_false",
        help="float32 on a GPU too, instead of float16 autocast",
    )
    parser.add_argument("--num_workers", type=int, default=4, help="threads that decode images (%(default)s)")
    parser.add_argument("--recall_k", type=int, nargs="+", default=[5], help="retrieval (5)")
    parser.add_argument("--fewshot_k", type=int, default=-1, help="linear probe: pictures of each class; -1 is all")
    parser.add_argument("--fewshot_epochs", type=int, help="changes nothing here")
    parser.add_argument("--fewshot_lr", type=float, help="changes nothing here")
    parser.add_argument("--skip_load", action="store_true", help="changes nothing here")
    parser.add_argument("--distributed", action="store_true", help="changes nothing here")
    parser.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    parser.add_argument("--batch_size", type=int, default=64, help="(%(default)s)")
    parser.add_argument("--normalize", type=_true_or_false, default=True, help="only True is possible here")
    parser.add_argument("--model_cache_dir", help="where weights are kept")
    parser.add_argument("--feature_root", default="features", help="where features are kept (%(default)s)")
    parser.add_argument("--annotation_file", default="", help="refused: captions are read from the shards")
    parser.add_argument("--custom_classname_file", help="JSON with the class names of each data set")
    parser.add_argument("--custom_template_file", help="JSON with the prompts of each data set")
    parser.add_argument("--dump_classnames", action="store_true", help="write the class names into the file")
    parser.add_argument("--dump_templates", action="store_true", help="write the templates into the file")
    parser.add_argument("--language", nargs="+", default=["en"], help="(en)")
    parser.add_argument("--output", default=_OUTPUT, help="(%(default)s)")
    parser.add_argument("--quiet", dest="verbose", action="store_false", help="say less")
    parser.add_argument("--save_clf", help="refused: features of prompts are kept anyway")
    parser.add_argument("--load_clfs", nargs="+", default=[], help="refused: not built")
    parser.add_argument("--skip_existing", action="store_true", help="not what has its file already")
    parser.add_argument("--model_type", default="open_clip", help="only open_clip")
    parser.add_argument("--wds_cache_dir", help="where fetched data sets are kept")
    parser.add_argument("--device", default="auto", help="not of CLIP_benchmark: cpu, cuda ... (%(default)s)")
    parser.set_defaults(action=_evaluate)


def _true_or_false(text: str) -> bool:
    """CLIP_benchmark takes every word for True, "False" too."""
    if text.lower() not in ("true", "false", "1", "0"):
        raise argparse.ArgumentTypeError(f"{text!r}: allowed: True or False")
    return text.lower() in ("true", "1")


def _evaluate(arguments: argparse.Namespace) -> None:
    from clip_eval.processes import Ranks

    _refuse(arguments)
    datasets = list(_datasets(arguments))
    models = list(dict.fromkeys(_models(arguments)))
    task = _TASKS.get(arguments.task)
    jobs = [
        [
            _Job(place, selected, language, _paths(arguments, selected, model, pretrained, language, task))
            for place, selected in enumerate(datasets)
            for language in dict.fromkeys(arguments.language)
        ]
        for model, pretrained in models
    ]
    _require_own_paths(arguments.output, [path for part in jobs for job in part for path in job.paths])
    with Ranks.join() as ranks:
        for (model, pretrained), part in zip(models, jobs, strict=True):
            left = [job for job in part if not (arguments.skip_existing and _is_there(job.paths, ranks, arguments))]
            if left:
                _evaluate_model(arguments, model, pretrained, left, len(datasets), task, ranks)


class _Job(NamedTuple):
    """One data set in one language, for one model."""

    place: int
    """Of the data set among those that were asked for; a flag may have a value for each."""
    selected: Selected
    language: str
    paths: list[Path]
    """One for each question of the data set."""


def _require_own_paths(output: str, paths: Sequence[Path]) -> None:
    twice = [path for path, count in Counter(paths).items() if count > 1]
    if twice:
        raise ConfigError(
            f"--output {output!r} would write several results to {twice[0]}, each over the one before. Tell them apart "
            f"with more of its words, as in {_OUTPUT!r}."
        )


def _refuse(arguments: argparse.Namespace) -> None:
    for name, reason in _REFUSED.items():
        if getattr(arguments, name):
            raise ConfigError(f"--{name} is not taken: {reason}.")
    if arguments.model_type != "open_clip":
        raise ConfigError(f"--model_type {arguments.model_type}: allowed: open_clip, whose names and files are read.")
    if not arguments.normalize:
        raise ConfigError("--normalize False: features have length 1 here in every task; leave the flag out.")
    for name, reason in _WITHOUT_EFFECT.items():
        if getattr(arguments, name) not in (None, False):
            _log.warning("--%s changes nothing: %s", name, reason)


def _datasets(arguments: argparse.Namespace) -> Iterator[Selected]:
    from clip_eval.selection import select

    root = arguments.dataset_root
    if root == _ROOT and not Path(root).is_dir():
        root = None  # the default, where nothing was ever kept: fetched from the Hub, as CLIP_benchmark downloads
    yield from select(arguments.dataset, root=root)


def _models(arguments: argparse.Namespace) -> Iterator[tuple[str, str]]:
    if not arguments.pretrained_model:
        yield from itertools.product(arguments.model, arguments.pretrained)
        return
    for word in arguments.pretrained_model:
        if Path(word).is_file():
            lines = Path(word).read_text(encoding="utf-8").splitlines()
            yield from (_pair(line) for line in lines if line.strip())
        elif word == "openclip_all":
            import clip_hub

            yield from clip_hub.list_pretrained()
        elif word in _COLLECTIONS:
            yield from _COLLECTIONS[word]
        else:
            yield _pair(word)


def _pair(text: str) -> tuple[str, str]:
    model, comma, pretrained = text.strip().partition(",")
    if not comma:
        known = ", ".join((*_COLLECTIONS, "openclip_all"))
        raise ConfigError(f"--pretrained_model {text!r}: allowed: MODEL,TAG, a file of such lines, or {known}.")
    return model, pretrained


def _per_dataset(values: Sequence[Any] | None, count: int, flag: str) -> list[Any]:
    if values is None:
        return [None] * count
    if len(values) not in (1, count):
        raise ConfigError(f"{flag} has {len(values)} values for {count} data sets; give one, or one for each.")
    return list(values) * (count if len(values) == 1 else 1)


def _evaluate_model(
    arguments: argparse.Namespace,
    model: str,
    pretrained: str,
    jobs: Sequence[_Job],
    count: int,
    task: Task | None,
    ranks: Ranks,
) -> None:
    from clip_eval.commands.run import require_writable
    from clip_eval.encoder import Encoder
    from clip_eval.records import Record
    from clip_eval.running import LanguageMissing, Wanted, run
    from clip_eval.store import FeatureStore

    trains = _per_dataset(arguments.train_split, count, "--train_split")
    validations = _per_dataset(arguments.val_split, count, "--val_split")
    shares = _per_dataset(arguments.val_proportion, count, "--val_proportion")
    encoder = None
    spoken: set[str] = set()
    missing: dict[str, LanguageMissing] = {}
    for place, selected, language, paths in jobs:
        if ranks.first:
            require_writable(paths[0].parent)
        if encoder is None:
            bundle = ranks.together(lambda: _load(arguments, model, pretrained, ranks))
            autocast = arguments.amp and bundle.model.logit_scale.device.type == "cuda"
            encoder = Encoder(
                bundle=bundle,
                batch_size=arguments.batch_size,
                workers=arguments.num_workers,
                progress=arguments.verbose,
                store=FeatureStore(arguments.feature_root),
                ranks=ranks,
                precision="amp" if autocast else None,
            )
            if arguments.amp and not autocast:
                _log.info("features are computed in float32; CLIP_benchmark's autocast is bfloat16 on a CPU")
        wanted = Wanted(
            tasks=() if task is None else (task,),
            # Its default is "en" for every set; that of a data set's own words or captions is what it means.
            languages=(None if language == "en" else language,),
            options=_options(arguments, selected, shares[place]),
            split=arguments.split,
            train_split=trains[place],
            validation_split=validations[place],
            cache_dir=arguments.wds_cache_dir,
        )
        try:
            found = list(run(encoder, [selected], wanted, model_name=f"{model}:{pretrained}"))
        except LanguageMissing as error:
            missing.setdefault(language, error)
            continue
        spoken.add(language)
        if not found:
            raise ConfigError(f"--task {arguments.task} cannot be asked of {selected.name}; leave it out for auto.")
        for _, record in found:
            assert isinstance(record, Record)  # nothing was looked for among existing ones
            if ranks.first:
                made = cast("Task", record.result.task)
                known = made if made in _NAMES else task
                path = _path(arguments, selected, model, pretrained, language, known, record.dataset.objective)
                _write(arguments, record, selected, model, pretrained, language, path)
    # The log has named those that were left out; a language that no data set has is a mistake.
    for language, lacks in missing.items():
        if language not in spoken:
            raise lacks


def _load(arguments: argparse.Namespace, model: str, pretrained: str, ranks: Ranks) -> Bundle:
    import clip_hub
    from clip_eval.commands.encoding import device_of

    device = device_of(arguments.device, ranks)
    return clip_hub.create(model, pretrained or None, device=device, cache_dir=arguments.model_cache_dir)


def _options(arguments: argparse.Namespace, selected: Selected, share: float | None) -> Options:
    from clip_eval.evaluation import Options
    from clip_eval.prompts import read_classnames, read_templates

    names = (selected.name, *(selected.entry.aliases if selected.entry is not None else ()))
    words: dict[str, Any] = {}
    # CLIP_benchmark keeps a data set's own words where the file does not name it.
    if arguments.custom_classname_file:
        words["classnames"] = read_classnames(arguments.custom_classname_file, *names, required=False)
    if arguments.custom_template_file:
        words["templates"] = read_templates(arguments.custom_template_file, *names, required=False)
    if share is not None:
        words["validation_share"] = share
    return Options(
        ks=tuple(arguments.recall_k),
        fewshot_k=None if arguments.fewshot_k < 0 else arguments.fewshot_k,
        seeds=(arguments.seed,),
        **words,
    )


def _paths(
    arguments: argparse.Namespace, selected: Selected, model: str, pretrained: str, language: str, task: Task | None
) -> list[Path]:
    """One for each question of the data set; a set that is neither known nor here yet is taken to ask one."""
    from clip_eval.running import objectives_of

    asked = objectives_of(selected, functools.partial(Path, selected.address))
    return [_path(arguments, selected, model, pretrained, language, task, objective) for objective in asked]


def _path(
    arguments: argparse.Namespace,
    selected: Selected,
    model: str,
    pretrained: str,
    language: str,
    task: Task | None,
    objective: str,
) -> Path:
    """Where CLIP_benchmark would write this result. With "auto" the kind of a set that is not here yet is guessed."""
    from clip_eval.wds.text_files import read_kind

    kind = selected.entry.kind if selected.entry is not None else "classification"
    if selected.entry is None and Path(selected.address).is_dir():
        kind = read_kind(Path(selected.address))
    auto = {"retrieval": "zeroshot_retrieval", "caption_choice": "image_caption_selection"}
    is_file = Path(pretrained).is_file()
    typed = selected.word.removeprefix("wds/") or selected.name
    values = {
        "model": model.replace("/", "_"),
        "pretrained": Path(pretrained).name if is_file else pretrained.replace("/", "_"),
        "pretrained_full_path": pretrained.replace("/", "_"),
        "task": _NAMES[task] if task is not None else auto.get(kind, "zeroshot_classification"),
        "dataset": "_".join(filter(None, (typed.replace("/", "_"), objective))),
        "language": language,
    }
    try:
        return Path(arguments.output.format(**values))
    except (KeyError, IndexError, ValueError) as error:
        allowed = ", ".join(f"{{{name}}}" for name in values)
        raise ConfigError(f"--output {arguments.output!r} cannot be filled ({error!r}); allowed: {allowed}.") from error


def _is_there(paths: Sequence[Path], ranks: Ranks, arguments: argparse.Namespace) -> bool:
    there = bool(ranks.text_from_first("yes" if all(path.exists() for path in paths) else ""))
    if there and ranks.first and arguments.verbose:
        _log.warning("%s is there already and is skipped", ", ".join(map(str, paths)))
    return there


def _write(
    arguments: argparse.Namespace,
    record: Record,
    selected: Selected,
    model: str,
    pretrained: str,
    language: str,
    path: Path,
) -> None:
    metrics = {name: metric.value for name, metric in record.result.metrics.items()}
    body: dict[str, Any] = {
        "dataset": selected.word or selected.name,
        "model": model,
        "pretrained": pretrained,
        "task": _NAMES.get(record.result.task, record.result.task),
        "metrics": metrics,
        "language": language,
    }
    details = record.to_json()["details"]
    if arguments.dump_classnames and "classes" in details:
        body["classnames"] = [entry["name"] for entry in details["classes"]]
    if arguments.dump_templates and "templates" in details:
        body["templates"] = details["templates"]
    body["clip_eval"] = record.to_json()
    partial = path.with_name(f"{path.name}.partial")
    try:
        partial.write_text(json.dumps(body, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise StorageError(f"--output {path} cannot be written ({error.strerror}); choose another file.") from error
    print(f"{selected.name} {language} {' '.join(f'{name}={value:.4f}' for name, value in metrics.items())}")
    print(f"record: {path}", flush=True)
