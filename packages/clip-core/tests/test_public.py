"""What the package promises to others: its names, its light import, its silence on the network."""

from __future__ import annotations

import subprocess
import sys

import clip_core

NAMES = """
Bundle CheckpointMismatch Clip ClipConfig ClipError ClipOutput ConfigError DataError ImageError StorageError
TokenTooLong UnknownModel __version__ build_transform create create_model create_model_and_transforms export
export_onnx get_config get_tokenizer list_models load load_image_tower load_text_tower open_image quantize save
"""


def test_public_names_are_the_ones_promised() -> None:
    assert sorted(clip_core.__all__) == sorted(NAMES.split())
    assert all(hasattr(clip_core, name) for name in clip_core.__all__)


def test_importing_loads_nothing_heavy_beside_torch() -> None:
    code = (
        "import sys, torch; before = set(sys.modules); import clip_core; new = set(sys.modules) - before;"
        "heavy = {'torchvision', 'timm', 'transformers', 'triton', 'PIL', 'ftfy', 'tokenizers', 'safetensors',"
        "'huggingface_hub', 'tqdm', 'regex'};"
        "print(sorted(heavy & {name.split('.')[0] for name in new}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_creating_saving_loading_and_classifying_opens_no_socket(tmp_path) -> None:
    code = f"""
import socket
def refuse(*a, **k): raise AssertionError("a socket was opened")
socket.socket.connect = refuse
socket.create_connection = refuse
import PIL.Image, clip_core
from clip_core.zero_shot import build_zero_shot_classifier
bundle = clip_core.create("tiny")
bundle = clip_core.load(clip_core.save(bundle, {str(tmp_path / "b")!r}))
bundle.model.encode_image(bundle.preprocess(PIL.Image.new("RGB", (9, 9)))[None])
build_zero_shot_classifier(bundle.model, bundle.tokenizer, ["a", "b"], ["{{c}}"])
print("fine")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "fine", done.stderr
