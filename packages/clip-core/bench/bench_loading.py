"""Seconds to create a model, and seconds and peak memory to load one from a file, each in a fresh process.

    python bench_loading.py [--rounds 3] [--only ViT-B-32] [--json FILE]

Creating draws random weights. Loading reads a safetensors file that lies in the file cache and then touches every
page of the weights, since a mapped file costs nothing before. Memory is above that of the bare import, in units of N,
the bytes of the weights at the dtype asked for: "peak" is all resident memory (VmHWM), "own" the part that is not pages
of the file, which the system can drop at will (the highest RssAnon, sampled every 2 ms).
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from beside import Row, options, report

CREATE = {
    "ours": "import clip_core; make = lambda: clip_core.create_model({name!r})",
    "open_clip": "import open_clip; make = lambda: open_clip.create_model({name!r})",
}
LOAD = {
    "ours": "import clip_core; make = lambda: clip_core.create_model({name!r}, {path!r}, precision={precision!r})",
    "open_clip": "import open_clip; make = lambda: open_clip.create_model({name!r}, {path!r}, precision={precision!r})",
    "transformers": "import torch, transformers; transformers.CLIPModel; "
    "dtype = dict(fp32=torch.float32, bf16=torch.bfloat16)[{precision!r}]; "
    "make = lambda: transformers.CLIPModel.from_pretrained({folder!r}, dtype=dtype)",
}
# Other formats of the same weights; the folder has OpenAI's activation, which transformers takes where nothing is said.
FORMATS = {
    "torch file": {
        "ours": "import clip_core; make = lambda: clip_core.create_model({name!r}, {torch!r}, precision={precision!r})",
        "open_clip": "import open_clip; make = lambda: open_clip.create_model({name!r}, {torch!r}, "
        "precision={precision!r})",
    },
    "transformers folder": {
        "ours": "import clip_core; make = lambda: clip_core.create_model({name!r} + '-quickgelu', {folder!r}, "
        "precision={precision!r})",
        "transformers": LOAD["transformers"],
    },
}
MEASURE = """
import json, logging, re, threading, time
logging.disable(logging.CRITICAL)
{imports}
def memory(field):
    return int(re.search(field + r":\\s+(\\d+) kB", open("/proc/self/status").read())[1]) * 1024
import torch
torch.zeros(1).sum()
base, anonymous = memory("VmRSS"), memory("RssAnon")
open("/proc/self/clear_refs", "w").write("5")  # the peak from here on
highest, done = [anonymous], threading.Event()
def watch():
    while not done.wait(0.002):
        highest[0] = max(highest[0], memory("RssAnon"))
watcher = threading.Thread(target=watch)
watcher.start()
start = time.perf_counter()
model = make()
with torch.no_grad():
    total = sum(float(p.flatten()[::512].sum()) for p in model.parameters())  # touches every page, copies none
seconds = time.perf_counter() - start
done.set()
watcher.join()
size = sum(p.nbytes for p in model.parameters())
print(json.dumps(dict(seconds=seconds, peak=(memory("VmHWM") - base) / size, own=(highest[0] - anonymous) / size)))
"""
SAVE = """
import logging, torch
logging.disable(logging.CRITICAL)
import open_clip
from safetensors.torch import save_file
torch.manual_seed(0)
weights = open_clip.create_model({name!r}).state_dict()
save_file(weights, {path!r})
torch.save(weights, {torch!r})
import transformers
c = open_clip.get_model_config({name!r})
v, t = c["vision_cfg"], c["text_cfg"]
config = transformers.CLIPConfig(
    text_config=dict(hidden_size=t["width"], num_hidden_layers=t["layers"], num_attention_heads=t["heads"],
                     intermediate_size=4 * t["width"]),
    vision_config=dict(hidden_size=v["width"], num_hidden_layers=v["layers"], patch_size=v["patch_size"],
                       num_attention_heads=v["width"] // 64, intermediate_size=4 * v["width"]),
    projection_dim=c["embed_dim"])
transformers.CLIPModel(config).save_pretrained({folder!r})
"""


def fresh(code: str) -> str:
    """What a new interpreter prints that runs `code`; its last line."""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return done.stdout.strip().splitlines()[-1] if done.stdout.strip() else ""


def medians(codes: dict[str, str], rounds: int) -> dict[str, dict[str, float]]:
    """Side -> figure -> median over the rounds, which alternate between the sides."""
    found: dict[str, list[dict[str, float]]] = {side: [] for side in codes}
    for turn in range(rounds):
        for side in list(codes) if turn % 2 else reversed(list(codes)):
            found[side].append(json.loads(fresh(MEASURE.format(imports=codes[side]))))
    return {side: {key: statistics.median(run[key] for run in runs) for key in runs[0]} for side, runs in found.items()}


def row(case: str, figures: dict[str, dict[str, float]], key: str) -> Row:
    """One line of the table: `key` of each side, and how many times open_clip's is ours."""
    values = {side: figures[side][key] for side in figures}
    ratio = values["open_clip"] / values["ours"] if "open_clip" in values else None
    return {"case": case, **values, "x open_clip": ratio}


def main() -> None:
    arguments = options(__doc__, rounds=3).parse_args()
    rows: list[Row] = []
    for name in ("ViT-B-32", "ViT-L-14"):
        if arguments.only not in name:
            continue
        codes = {side: code.format(name=name) for side, code in CREATE.items()}
        rows.append(row(f"create {name}, seconds", medians(codes, arguments.rounds), "seconds"))
        with tempfile.TemporaryDirectory() as scratch:
            files = {"path": "model.safetensors", "torch": "model.pt", "folder": "transformers"}
            paths = {key: str(Path(scratch) / file) for key, file in files.items()}
            fresh(SAVE.format(name=name, **paths))
            for precision in ("fp32", "bf16"):
                values = {"name": name, "precision": precision, **paths}
                for file, sides in {"fp32 file": LOAD, **FORMATS}.items():
                    codes = {side: code.format(**values) for side, code in sides.items()}
                    figures = medians(codes, arguments.rounds)
                    case = f"load {name}, {file} as {precision}"
                    rows += [
                        row(f"{case}, {title}", figures, key)
                        for key, title in (("seconds", "seconds"), ("peak", "peak / N"), ("own", "own memory / N"))
                    ]
    report("loading", rows, arguments.json)


if __name__ == "__main__":
    main()
