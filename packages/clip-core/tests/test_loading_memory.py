"""How much memory loading takes, of the whole process with the pages of mapped files in it, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import clip_core
from clip_core.building import build
from clip_core.config import VitConfig
from clip_core.convert.openai import from_clip
from clip_core.presets.parts import model, text_tower

pytestmark = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads /proc of Linux")

BOUND = 1.3
# In heads of 64 channels and with quick GELU, so that OpenAI's layout can say it; 160 MB in float32.
CONFIG = model(
    256,
    VitConfig(image_size=224, patch_size=32, width=512, layers=8, heads=8, mlp_dim=2048, activation="quick_gelu"),
    text_tower(256, 3, 4, activation="quick_gelu"),
)
CHILD = """
import ctypes, gc, json, re, sys
import torch, clip_core
clip_core.create('tiny')  # a bundle also has a transform and a vocabulary, which are not weights
def memory(field):
    return int(re.search(field + r":\\s+(\\d+) kB", open("/proc/self/status").read())[1]) * 1024
def rest():
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    open("/proc/self/clear_refs", "w").write("5")  # the peak from here on
    return memory("VmRSS")
base, found = rest(), {}
for name, path, precision, architecture in json.load(open(sys.argv[1])):
    rest()
    if architecture:
        model = clip_core.building.build(clip_core.ClipConfig.from_json(architecture), path, precision=precision)
    else:
        model = clip_core.load(path, precision=precision).model
    loaded = memory("VmHWM") - base
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.view(-1).view(torch.uint8).max()  # brings every page in
    size = sum(parameter.nbytes for parameter in model.parameters())
    found[name] = (round(loaded / size, 3), round((memory("VmHWM") - base) / size, 3), size)
    del model, parameter
print(json.dumps(found))
"""


def cases(folder: Path) -> list[tuple[str, str, str, object]]:
    """Name, path, precision, and the configuration where the file does not say it."""
    torch.manual_seed(0)
    bundle = clip_core.Bundle.of(build(CONFIG))
    single = clip_core.save(bundle, folder / "fp32")
    tensors = {key: value.detach() for key, value in bundle.model.state_dict().items()}
    (folder / "bf16").mkdir()
    (folder / "bf16" / "clip_config.json").write_bytes((single / "clip_config.json").read_bytes())
    halves = {key: value.to(torch.bfloat16) if value.ndim else value for key, value in tensors.items()}
    save_file(halves, folder / "bf16" / "model.safetensors")
    torch.save({"state_dict": {f"module.{key}": value for key, value in tensors.items()}}, folder / "openclip.pt")
    torch.save(from_clip({k: v.half() if v.ndim else v for k, v in tensors.items()}, CONFIG), folder / "openai.pt")
    whole = clip_core.export(bundle, folder / "transformers", "transformers")
    shards(whole, folder / "shards")
    stated = CONFIG.to_json()
    return [
        ("bundle", str(single), "fp32", None),
        ("bundle, fp32 to bf16", str(single), "bf16", None),
        ("bundle of bf16", str(folder / "bf16"), "bf16", None),
        ("OpenCLIP's .pt", str(folder / "openclip.pt"), "fp32", stated),
        ("OpenCLIP's .pt, fp32 to bf16", str(folder / "openclip.pt"), "bf16", stated),
        ("OpenAI's state dict of fp16", str(folder / "openai.pt"), "fp32", None),
        ("transformers", str(whole), "fp32", None),
        ("transformers, fp32 to bf16", str(whole), "bf16", None),
        ("transformers in shards", str(folder / "shards"), "fp32", None),
    ]


def shards(whole: Path, folder: Path) -> None:
    """The folder of transformers with its weights in four files."""
    from safetensors.torch import load_file

    folder.mkdir()
    for path in whole.glob("*.json"):
        (folder / path.name).write_bytes(path.read_bytes())
    tensors = load_file(whole / "model.safetensors")
    places = {key: f"model-0000{number % 4 + 1}-of-00004.safetensors" for number, key in enumerate(tensors)}
    for name in set(places.values()):
        part: dict[str, Tensor] = {key: tensors[key] for key in tensors if places[key] == name}
        save_file(part, folder / name, metadata={"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


def test_loading_holds_the_weights_about_once(tmp_path: Path) -> None:
    (tmp_path / "cases.json").write_text(json.dumps(cases(tmp_path)))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CHILD, str(tmp_path / "cases.json")], capture_output=True, text=True
    )
    assert not done.returncode, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found) == 9
    assert all(size > 70e6 for _, _, size in found.values())  # of what is measured in, not an empty model
    over = {name: peaks for name, (*peaks, _) in found.items() if max(peaks) > BOUND}
    assert not over, found
