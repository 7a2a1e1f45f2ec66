"""Whole runs of clip-train and of open_clip 3.3.0 with one command line, on the CPU: speed, memory and loss.

    python bench_training.py [--rounds 2] [--steps 8] [--precision fp32 amp_bf16] [--json FILE]
    python bench_training.py --curve curve.png [--seeds 3] [--steps 150]

`python -m open_clip_train.main FLAGS` and `clip-train FLAGS` take the same flags and begin with the same weights. The
shards hold photographs of 256 to 512 pixels with captions of 5 to 25 words (shards.py); the model is the smallest of
open_clip's own vision transformers, ViT-S-32-alt at 224 pixels. Samples per second are those of the steps after the
warm-up, by the clock, reading included, and per second of processor time, so that other work on the machine does not
count. Memory is the most that the process and its data workers held. Rounds alternate; figures are medians. On two
cores that are free this takes five minutes.

With `--curve` both train a smaller model (8 million weights, images of 64 pixels), with several seeds, which set
weights, order and crops. Printed is how far the mean losses of the last quarter lie apart, beside how far those of
single seeds do.

Linux only: it reads /proc.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import signal
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import whole_runs
from shards import write_shards

MODEL = "ViT-S-32-alt"
SMALL = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": 64, "layers": 4, "width": 128, "patch_size": 16, "head_width": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 128, "heads": 4, "layers": 4},
}
"""What is trained for a curve, as open_clip states a model."""


def weights_of(model: str, path: Path, seed: int) -> Path:
    """What open_clip draws for `model`, in a file that both sides read."""
    import open_clip

    torch.manual_seed(seed)
    torch.save(open_clip.create_model(model).state_dict(), path)
    return path


def small_model(folder: Path, seed: int) -> Path:
    """A folder that both sides take as `local-dir:`, with weights in it."""
    import open_clip
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": SMALL, "preprocess_cfg": {}}))
    torch.manual_seed(seed)
    model = open_clip.CLIP(**SMALL)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder


def common(given: argparse.Namespace, train_data: str, samples: int) -> list[str]:
    """Flags of every run."""
    return [
        "--train-data", train_data, "--dataset-type", "webdataset", "--train-num-samples", str(samples),
        "--batch-size", str(given.batch_size), "--workers", str(given.workers), "--epochs", "1", "--device", "cpu",
        "--save-frequency", "0",
    ]  # fmt: skip


def environment(given: argparse.Namespace) -> dict[str, str]:
    return {"OMP_NUM_THREADS": str(given.threads)} if given.threads else {}


def compare(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Speed and memory of whole runs."""
    samples = given.steps * given.batch_size
    data, about = write_shards(folder / "shards", samples)
    begin = weights_of(MODEL, folder / "begin.pt", 0)
    rows: list[dict[str, Any]] = []
    for precision in given.precision:
        flags = [
            *common(given, data, samples),
            *("--model", MODEL, "--pretrained", str(begin), "--precision", precision, "--warmup", "5", "--lr", "5e-4"),
        ]
        runs: dict[str, list[whole_runs.Run]] = {side: [] for side in whole_runs.SIDES}
        for turn in range(given.rounds):
            for side in runs if turn % 2 else reversed(runs):
                name = f"{side}-{precision}-{turn}"
                made = whole_runs.run(side, flags, folder, name, warm=given.warm, environment=environment(given))
                runs[side].append(made)
                figures = ", ".join(f"{key} {value:.3g}" for key, value in _figures([made], given.batch_size).items())
                print(f"{name}: {figures}, last loss {made.losses[-1]:.3f}", file=sys.stderr, flush=True)
        found = {side: _figures(made, given.batch_size) for side, made in runs.items()}
        peer = found["open_clip"]
        for side, row in found.items():
            ratios = {key: row[key] / peer[key] for key in ("samples/s", "samples/processor s", "peak GB")}
            rows.append({"precision": precision, "side": side, **row, "times": ratios})
    print(
        f"\n{MODEL}, batch {given.batch_size}, {given.workers} worker(s), {given.rounds} rounds of {given.steps} steps"
    )
    print("| precision | | samples/s | per second of processor time | peak memory |")
    print("|---|---|---:|---:|---:|")
    for row in rows:
        cells = [f"{row[key]:.{digits}f}" for key, digits in FIGURES]
        if row["side"] != "open_clip":
            cells = [f"{cell} (x {row['times'][key]:.2f})" for cell, (key, _) in zip(cells, FIGURES, strict=True)]
        print(f"| {row['precision']} | {row['side']} | {cells[0]} | {cells[1]} | {cells[2]} GB |")
    return {"model": MODEL, "data": about, "rows": rows}


FIGURES = (("samples/s", 1), ("samples/processor s", 1), ("peak GB", 2))


def _figures(runs: list[whole_runs.Run], batch: int) -> dict[str, float]:
    return {
        "samples/s": statistics.median(run.steps * batch / run.seconds for run in runs),
        "samples/processor s": statistics.median(run.steps * batch / run.processor_seconds for run in runs),
        "peak GB": statistics.median(run.peak_bytes for run in runs) / 1e9,
    }


def curve(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Losses of both sides, step by step, with several seeds."""
    samples = given.steps * given.batch_size
    data, about = write_shards(folder / "shards", min(samples, given.samples), scale=0.25)
    found: dict[str, list[list[float]]] = {side: [] for side in whole_runs.SIDES}
    for seed in range(given.seeds):
        model = small_model(folder / f"model-{seed}", seed)
        flags = [
            *common(given, data, samples),
            *("--model", f"local-dir:{model}", "--precision", given.precision[0], "--warmup", str(given.steps // 10)),
            *("--lr", "1e-3", "--wd", "0.1", "--seed", str(seed), "--beta2", "0.98", "--eps", "1e-6"),
        ]
        for side in found if seed % 2 else reversed(found):
            made = whole_runs.run(side, flags, folder, f"{side}-{seed}", warm=1, environment=environment(given))
            if len(made.losses) != given.steps:
                sys.exit(f"{side} took {len(made.losses)} steps, not {given.steps}")
            found[side].append(made.losses)
    tail = max(1, given.steps // 4)
    ends = {side: [statistics.mean(run[-tail:]) for run in runs] for side, runs in found.items()}
    means = {side: statistics.mean(values) for side, values in ends.items()}
    variances = [statistics.variance(values) if len(values) > 1 else math.nan for values in ends.values()]
    spread = math.sqrt(sum(variances) / len(variances))
    difference = means["clip-train"] - means["open_clip"]
    first = {side: statistics.mean(run[0] for run in runs) for side, runs in found.items()}
    for side, values in ends.items():
        each = ", ".join(f"{value:.3f}" for value in values)
        print(f"{side:11} loss {first[side]:.3f} at the first step, {means[side]:.3f} over the last {tail} ({each})")
    print(f"difference {difference:+.4f}; one seed from another: standard deviation {spread:.4f}")
    if given.curve.suffix:
        draw(found, given.curve)
    return {"model": SMALL, "data": about, "losses": found, "ends": ends, "difference": difference, "spread": spread}


def draw(found: dict[str, list[list[float]]], path: Path) -> None:
    """A band from the least to the most of the seeds, and their mean, each smoothed over 5 steps."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    for (side, runs), colour in zip(found.items(), ("#b35806", "#1f5fa8"), strict=True):
        smooth = [[statistics.mean(run[max(0, at - 4) : at + 1]) for at in range(len(run))] for run in runs]
        steps = range(1, len(smooth[0]) + 1)
        at_step = list(zip(*smooth, strict=True))
        axes.fill_between(
            steps, [min(at) for at in at_step], [max(at) for at in at_step], color=colour, alpha=0.2, lw=0
        )
        axes.plot(steps, [statistics.mean(at) for at in at_step], color=colour, label=f"{side}, {len(runs)} seeds")
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.legend()
    figure.savefig(path, dpi=150)
    print(f"drawn: {path}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, help="of each run (default 8; with --curve 150)")
    parser.add_argument("--warm", type=int, default=2, help="steps at the beginning that are not counted")
    parser.add_argument("--batch-size", type=int, help="default 48; with --curve 64")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=0, help="of the training process; 0: as torch chooses")
    parser.add_argument("--precision", nargs="+", default=["fp32", "amp_bf16"])
    parser.add_argument("--curve", type=Path, metavar="PNG", help="compare losses, and draw them into this file")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=4000, help="different ones, for --curve")
    parser.add_argument("--folder", type=Path, help="keep runs and shards here (default: a folder that is deleted)")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that what was started ends, too
    given.batch_size = given.batch_size or (64 if given.curve else 48)
    given.steps = given.steps or (150 if given.curve else 8)
    with tempfile.TemporaryDirectory() as made:
        folder = given.folder or Path(made)
        found = (curve if given.curve else compare)(given, folder)
    settings = {name: getattr(given, name) for name in ("steps", "warm", "batch_size", "workers", "threads", "rounds")}
    machine = {"machine": _processor(), "cores": os.cpu_count(), "torch": torch.__version__, "load": os.getloadavg()[0]}
    print(", ".join(f"{key} {value}" for key, value in machine.items()))
    if given.json:
        body = {**found, "settings": settings, **machine}
        given.json.write_text(json.dumps(body, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.machine()


if __name__ == "__main__":
    main()
