"""What the package promises to others: its names, and an import that stays light."""

from __future__ import annotations

import subprocess
import sys

import clip_train

NAMES = """
AugmentConfig CheckpointConfig DataConfig EvaluationConfig LoggingConfig ModelConfig ObjectiveConfig OptimConfig
ParallelConfig RunConfig RunResult TrainConfig TrainingDiverged __version__ train
"""


def test_public_names_are_the_ones_promised() -> None:
    assert sorted(clip_train.__all__) == sorted(NAMES.split())
    assert all(hasattr(clip_train, name) for name in clip_train.__all__)


def test_importing_loads_nothing_heavy_beside_torch() -> None:
    code = (
        "import sys, torch; before = set(sys.modules); import clip_train, clip_train.cli, clip_train.flags;"
        "new = set(sys.modules) - before;"
        "heavy = {'torchvision', 'timm', 'sklearn', 'matplotlib', 'webdataset', 'huggingface_hub', 'tqdm', 'PIL'};"
        "print(sorted(heavy & {name.split('.')[0] for name in new}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_command_line_speaks_to_the_system_before_torch_is_loaded() -> None:
    code = (
        "import os, sys; os.environ.pop('GOMP_SPINCOUNT', None); os.environ.pop('OMP_WAIT_POLICY', None);"
        "import clip_train.cli; assert 'torch' not in sys.modules, 'torch is loaded too early';"
        "clip_train.cli.main(['show', '--model', 'tiny', '--train-data', 'a.tar']);"
        "print(os.environ['GOMP_SPINCOUNT'], 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "1000 True"


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(clip_train, "no_such_name")
    assert set(NAMES.split()) <= set(dir(clip_train))
