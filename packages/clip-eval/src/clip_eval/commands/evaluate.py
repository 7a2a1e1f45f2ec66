"""`clip-eval eval`: CLIP_benchmark's command line, flag for flag, and the JSON files that it writes.

What its commands ask for is done by the same code as `clip-eval run`. What is not here: the flags (`benchmark_flags`)
and the files (`benchmark_files`).
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from clip_core.errors import ConfigError
from clip_eval.commands.benchmark_files import Job, are_there, path_of, paths_of, require_own_paths, write_result
from clip_eval.commands.benchmark_flags import add_flags, check_flags, datasets_of, models_of, per_dataset
from clip_eval.records.peers import PEER_TASKS

if TYPE_CHECKING:
    from clip_core import Bundle
    from clip_eval.encoder import Encoder
    from clip_eval.evaluation import Options, Task
    from clip_eval.processes import Ranks
    from clip_eval.running import LanguageMissing
    from clip_eval.selection import Selected

__all__ = ["add"]

_log = logging.getLogger(__name__)

_TASKS: dict[str, Task] = {theirs: cast("Task", ours) for ours, theirs in PEER_TASKS.items()}


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
    add_flags(parser)
    parser.set_defaults(action=_evaluate)


def _evaluate(arguments: argparse.Namespace) -> None:
    from clip_eval.processes import Ranks

    check_flags(arguments)
    datasets = datasets_of(arguments)
    task = _TASKS.get(arguments.task)
    jobs = {
        model: [
            Job(*model, place, selected, language)
            for place, selected in enumerate(datasets)
            for language in dict.fromkeys(arguments.language)
        ]
        for model in models_of(arguments)
    }
    paths = {job: paths_of(job, arguments.output, task) for part in jobs.values() for job in part}
    require_own_paths(arguments.output, [path for part in paths.values() for path in part])
    with Ranks.join() as ranks:
        for part in jobs.values():
            left = [
                job
                for job in part
                if not (arguments.skip_existing and are_there(paths[job], ranks, aloud=arguments.verbose))
            ]
            if left:
                # What is there already was made by an earlier start of the same command.
                spoken = {job.language for job in part if job not in left}
                _evaluate_model(arguments, left, paths, len(datasets), task, ranks, spoken)


def _evaluate_model(
    arguments: argparse.Namespace,
    jobs: Sequence[Job],
    paths: dict[Job, list[Path]],
    count: int,
    task: Task | None,
    ranks: Ranks,
    spoken: set[str],
) -> None:
    """`spoken`: languages of which some data set has its file already."""
    from clip_eval.commands.run import require_writable
    from clip_eval.records import Record
    from clip_eval.running import LanguageMissing, Wanted, run

    trains = per_dataset(arguments.train_split, count, "--train_split")
    validations = per_dataset(arguments.val_split, count, "--val_split")
    shares = per_dataset(arguments.val_proportion, count, "--val_proportion")
    encoder = None
    missing: dict[str, LanguageMissing] = {}
    for job in jobs:
        selected, language = job.selected, job.language
        if ranks.first:
            require_writable(paths[job][0].parent)
        encoder = encoder or _make_encoder(arguments, job, ranks)
        wanted = Wanted(
            tasks=() if task is None else (task,),
            # Its default is "en" for every set; that of a data set's own words or captions is what it means.
            languages=(None if language == "en" else language,),
            options=_options(arguments, selected, shares[job.place]),
            split=arguments.split,
            train_split=trains[job.place],
            validation_split=validations[job.place],
            # As CLIP_benchmark does; their images are ties, which the task says.
            allow_duplicate_classes=True,
            cache_dir=arguments.wds_cache_dir,
        )
        try:
            found = list(run(encoder, [selected], wanted, model_name=f"{job.model}:{job.pretrained}"))
        except LanguageMissing as error:
            missing.setdefault(language, error)
            continue
        spoken = spoken | {language}
        if not found:
            raise ConfigError(f"--task {arguments.task} cannot be asked of {selected.name}; leave it out for auto.")
        for _, record in found:
            assert isinstance(record, Record)  # nothing was looked for among existing ones
            if ranks.first:
                made = record.result.task if record.result.task in PEER_TASKS else task
                path = path_of(job, arguments.output, made, record.dataset.objective)
                write_result(arguments, job, record, path)
    # The log has named those that were left out; a language that no data set has is a mistake.
    for language, lacks in missing.items():
        if language not in spoken:
            raise lacks


def _make_encoder(arguments: argparse.Namespace, job: Job, ranks: Ranks) -> Encoder:
    from clip_eval.encoder import Encoder
    from clip_eval.store import FeatureStore

    bundle = ranks.together(lambda: _load(arguments, job, ranks))
    autocast = arguments.amp and bundle.model.logit_scale.device.type == "cuda"
    if arguments.amp and not autocast:
        _log.info("features are computed in float32; CLIP_benchmark's autocast is bfloat16 on a CPU")
    return Encoder(
        bundle=bundle,
        batch_size=arguments.batch_size,
        workers=arguments.num_workers,
        progress=arguments.verbose,
        store=FeatureStore(arguments.feature_root),
        ranks=ranks,
        precision="amp" if autocast else None,
    )


def _load(arguments: argparse.Namespace, job: Job, ranks: Ranks) -> Bundle:
    import clip_hub
    from clip_eval.commands.encoding import device_of

    device = device_of(arguments.device, ranks)
    return clip_hub.create(job.model, job.pretrained or None, device=device, cache_dir=arguments.model_cache_dir)


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
        allow_duplicate_classnames=True,
        **words,
    )
