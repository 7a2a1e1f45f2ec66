"""`clip_hub.open_clip` in OpenCLIP's place: the same script, the same weights, the same figures."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import open_clip
import PIL.Image
import pytest
import torch

import clip_core

pytestmark = pytest.mark.parity

SCRIPT = Path(__file__).with_name("drop_in_script.py")
SMALL = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 3, "width": 64, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
COCA = {
    "embed_dim": 32,
    "vision_cfg": {
        "image_size": 32,
        "layers": 2,
        "width": 32,
        "head_width": 16,
        "patch_size": 8,
        "attentional_pool": True,
        "attn_pooler_heads": 2,
        "output_tokens": True,
    },
    "text_cfg": {
        "context_length": 76,
        "vocab_size": 49408,
        "width": 32,
        "heads": 2,
        "layers": 2,
        "embed_cls": True,
        "output_tokens": True,
    },
    "multimodal_cfg": {"context_length": 76, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
    "custom_text": True,
}
PLACED = """
import sys
import clip_hub.open_clip
sys.modules["open_clip"] = clip_hub.open_clip
sys.argv.pop(0)
import runpy
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Configurations, random weights, a picture, a model in OpenCLIP's layout."""
    home = tmp_path_factory.mktemp("drop-in")
    (home / "configs").mkdir()
    torch.manual_seed(1)
    for name, config in (("small", SMALL), ("coca_small", COCA)):
        (home / "configs" / f"{name}.json").write_text(json.dumps(config))
        open_clip.add_model_config(home / "configs")
        model = open_clip.create_model(name)
        if name == "coca_small":  # OpenCLIP leaves some of its parameters as the memory was that they lie in
            for parameter in model.parameters():
                torch.nn.init.normal_(parameter, std=0.05)
        torch.save(model.state_dict(), home / f"{name}.pt")
    torch.manual_seed(2)
    clip_core.export(clip_core.create("tiny"), home / "exported")
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    PIL.Image.fromarray(pixels).resize((90, 60)).save(home / "picture.png")
    yield home
    # What was added stays for the process, and other tests list the models.
    for name in ("small", "coca_small"):
        open_clip.factory._MODEL_CONFIGS.pop(name)
    paths = open_clip.factory._MODEL_CONFIG_PATHS
    paths[:] = [path for path in paths if home not in path.parents]


# It warns of the augmentations that it does.
@pytest.mark.filterwarnings("ignore:Unused augmentation cfg items")
def test_a_users_script_gives_the_same_with_the_module_in_open_clips_place(folder: Path) -> None:
    results = folder / "ours.pt"
    run = [sys.executable, "-c", PLACED, str(SCRIPT), str(folder), str(results)]
    subprocess.run(run, check=True, timeout=120)
    ours = torch.load(results, weights_only=True)
    theirs = runpy.run_path(str(SCRIPT))["main"](folder)
    assert ours.keys() == theirs.keys()
    wrong = []
    for name, expected in theirs.items():
        try:
            compare(ours[name], expected)
        except AssertionError as error:
            wrong.append(f"{name}: {error}")
    assert not wrong, "\n\n".join(wrong)


def compare(ours: object, theirs: object) -> None:
    """Both are of one shape; tensors are equal but for float noise."""
    if isinstance(theirs, torch.Tensor):
        torch.testing.assert_close(ours, theirs.detach(), atol=2e-5, rtol=1e-5)
    elif isinstance(theirs, dict):
        assert isinstance(ours, dict)
        assert ours.keys() == theirs.keys()
        for key in theirs:
            compare(ours[key], theirs[key])
    elif isinstance(theirs, list | tuple):
        assert type(ours) is type(theirs)
        assert len(ours) == len(theirs)  # type: ignore[arg-type]
        for pair in zip(ours, theirs, strict=True):  # type: ignore[call-overload]
            compare(*pair)
    else:
        assert ours == theirs
