"""Commands that people already have: those of open_clip's README and of a ConvNeXt's model card, word for word.

bash itself splits them into words, as it would for their users.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import readme
from clip_core.errors import ConfigError
from clip_train.config import TrainConfig
from clip_train.flags import parse

pytestmark = pytest.mark.parity

# Of laion/CLIP-convnext_large_d_320.laion2B-s29B-b131K-ft-soup, with torchrun for its srun and `""/runs` mended.
CARD = r"""
torchrun --nproc_per_node 2 -m -- clip_train \
    --save-frequency 1 \
    --name "convnext_large_320" \
    --pretrained "/runs/convnext_large_256/epoch_128.pt" \
    --resume 'latest' \
    --train-data="pipe:aws s3 cp s3://mybucket/path/{laion{00000..xxxxx}.tar -" \
    --train-num-samples 203666042 \
    --dataset-type webdataset \
    --precision amp_bfloat16 \
    --beta2 0.98 \
    --warmup 2000 \
    --batch-size=256 \
    --epochs=12 \
    --dataset-resampled \
    --aug-cfg use_timm=True scale='(0.5, 1.0)' re_prob=0.4 \
    --clip-grad-norm 5.0 \
    --lr 5e-5 \
    --workers=6 \
    --model "convnext_large_d_320" \
    --seed 0 \
    --ddp-static-graph \
    --local-loss \
    --gather-with-grad \
    --grad-checkpointing"""


def words_of(command: str) -> list[list[str]]:
    """The words of every training command that bash would run in `command`, after the program's name."""
    script = """
    say() { printf '%s\\0' "$@" >&3; printf 'END\\0' >&3; }
    python() { say "$@"; }; torchrun() { say "$@"; }; srun() { say "$@"; }
    """
    # What surrounds a command in a SLURM script is not here, and need not be.
    done = subprocess.run(
        ["bash", "-c", f"exec 3>&1 1>/dev/null 2>/dev/null\n{script}\n{command}"],
        stdout=subprocess.PIPE,
        check=False,
        text=True,
    )
    found: list[list[str]] = []
    words: list[str] = []
    for word in done.stdout.split("\0")[:-1]:
        if word == "END":
            found.append(words)
            words = []
        else:
            words.append(word)
    return found


def flags_in(words: list[str]) -> list[str]:
    """What follows the name of the program, which is a module or a file."""
    names = ("clip_train", "open_clip_train.main", "src/open_clip_train/main.py")
    at = next(index for index, word in enumerate(words) if word in names)
    return words[at + 1 :]


def readme_commands() -> list[list[str]]:
    page = importlib.metadata.metadata("open_clip_torch").get_payload()
    blocks = [block.code for block in readme.snippets(str(page)) if block.language == "bash"]
    commands = [words for block in blocks if "open_clip_train" in block for words in words_of(block)]
    return [flags_in(words) for words in commands if any("open_clip_train" in word for word in words)]


@pytest.fixture(scope="module")
def commands() -> list[list[str]]:
    return readme_commands()


def test_the_training_commands_of_the_readme_are_read_as_open_clip_reads_them(commands: list[list[str]]) -> None:
    from open_clip_train import params

    training = [words for words in commands if any(word.startswith("--train-data") for word in words)]
    assert len(training) >= 6
    for words in training:
        theirs = vars(params.parse_args(words))
        config = parse(words)[0].fields()
        for name, ours in config.items():
            if name in theirs and name not in DIFFERENT:
                expected = tuple(theirs[name]) if isinstance(theirs[name], list) else theirs[name]
                assert ours == expected, (name, words)


# Fields whose value has another form here, or another default, which the README says.
DIFFERENT = {"aug_cfg", "device", "precision", "loss_dist_impl", "opt_kwargs", "report_to"}


def test_a_command_that_only_evaluates_is_told_where_to_go(commands: list[list[str]]) -> None:
    evaluating = [words for words in commands if not any(word.startswith("--train-data") for word in words)]
    assert evaluating
    for words in evaluating:
        with pytest.raises(ConfigError, match=r"train_data is missing.*clip-eval"):
            parse(words)


def test_the_command_of_the_convnext_card_is_read_in_full() -> None:
    (words,) = words_of(CARD)
    made: dict[str, Any] = parse(flags_in(words))[0].fields()
    expected = {
        "save_frequency": 1,
        "name": "convnext_large_320",
        "pretrained": "/runs/convnext_large_256/epoch_128.pt",
        "resume": "latest",
        "train_data": "pipe:aws s3 cp s3://mybucket/path/{laion{00000..xxxxx}.tar -",
        "train_num_samples": 203666042,
        "dataset_type": "webdataset",
        "precision": "amp_bf16",
        "beta2": 0.98,
        "warmup": 2000,
        "batch_size": 256,
        "epochs": 12,
        "dataset_resampled": True,
        "grad_clip_norm": 5.0,
        "lr": 5e-5,
        "workers": 6,
        "model": "convnext_large_d_320",
        "seed": 0,
        "ddp_static_graph": True,
        "local_loss": True,
        "gather_with_grad": True,
        "grad_checkpointing": True,
    }
    assert {name: made[name] for name in expected} == expected
    aug = made["aug_cfg"]
    assert (aug.use_timm, aug.scale, aug.re_prob) == (True, (0.5, 1.0), 0.4)


def test_the_command_of_the_convnext_card_trains_on_small_shards(shards: str, tmp_path: Path) -> None:
    (words,) = words_of(CARD)
    later = [
        "--train-data", shards, "--pretrained", "", "--model", "tiny", "--train-num-samples", "40", "--epochs", "1",
        "--batch-size", "4", "--warmup", "2", "--workers", "0", "--device", "cpu", "--logs", str(tmp_path),
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *words, *later],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.count("bundle ") == 1, "one of the processes says what there is"
    folder = tmp_path / "convnext_large_320"
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 6))
    assert all(line["finite"] and line["updated"] for line in lines if "finite" in line)
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert (summary["finished"], summary["processes"], summary["samples_seen"]) == (True, 2, 40)
    config = TrainConfig.from_json(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    assert (config.optim.lr, config.optim.grad_clip_norm) == (5e-5, 5.0)
