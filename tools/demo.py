"""The whole stack on real images, with no GPU and no downloads: build data, train, evaluate, report, classify.

`nox -s demo` runs this with an interpreter that has the four packages, and hands over a second one that has clip-core
alone. Every step is a command that a user could type; this file only strings them together, prints them, and says at
the end whether the promised figures were reached.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

__all__ = ["main"]

# What the demo promises on held-out data: accuracy on single digits, text-to-image recall@1 on two-digit scenes.
PROMISED_ACCURACY = 0.95
PROMISED_RECALL = 0.5

LEFT_OF, ABOVE = " to the left of ", " above "

TRAINING = {
    "--model": "tiny",
    "--batch-size": "128",
    "--epochs": "7",
    "--lr": "2e-3",
    "--warmup": "200",
    "--wd": "0.2",
    "--precision": "fp32",
    "--workers": "1",
    "--seed": "0",
}


def main() -> int:
    """Run the demo; 0 if the promised figures were reached, 1 if not, 2 if a step failed."""
    parser = argparse.ArgumentParser(description="Train, evaluate and use a small CLIP on scikit-learn's digits.")
    parser.add_argument("--output", type=Path, default=Path("demo"), metavar="DIR", help="where everything goes (demo)")
    parser.add_argument(
        "--core-python", default=sys.executable, metavar="PYTHON", help="an interpreter that has clip-core alone"
    )
    parser.add_argument("--epochs", default=TRAINING["--epochs"], help="passes over the training pictures")
    options = parser.parse_args()
    start = time.monotonic()
    output: Path = options.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    data, runs = output / "data", output / "runs"

    headline("1. Real images as webdataset shards")
    if (data / "digits").is_dir() and (data / "digit_scenes").is_dir():
        print(f"{data} is there already.")
    else:
        command(sys.executable, "-m", "clip_eval", "build", "digits", "--output", data)

    headline("2. Train")
    before = set(runs.glob("*"))
    shards = sorted(path.stem for path in (data / "train").glob("*.tar"))
    flags = [part for pair in {**TRAINING, "--epochs": options.epochs}.items() for part in pair]
    pattern = f"{data / 'train'}/{{{shards[0]}..{shards[-1]}}}.tar"
    command(sys.executable, "-m", "clip_train", "--train-data", pattern, *flags, "--logs", runs, "--progress")
    (run,) = set(runs.glob("*")) - before

    headline("3. Evaluate on held-out digits and scenes")
    sets = (data / "digits", data / "digit_scenes")
    results = run / "eval"
    command(sys.executable, "-m", "clip_eval", "run", *sets, "--model", run / "bundle", "--output", results)

    headline("4. Report")
    report = run / "report.html"
    command(
        sys.executable, "-m", "clip_eval", "report", "--results", results, "--training", run, "--output", report,
        "--title", "CLIP learns to read digits",
    )  # fmt: skip

    headline("5. Classify a held-out scene in a process that has only clip-core")
    picture, caption = held_out_scene(data / "digit_scenes", output / "scene.png")
    left, right = caption.split(LEFT_OF)
    candidates = (caption, right + LEFT_OF + left, left + ABOVE + right, right + ABOVE + left)
    only_core(options.core_python)
    command(
        options.core_python, "-m", "clip_core", "classify", "--bundle", run / "bundle", picture, *candidates
    )  # fmt: skip
    print(f"({picture} was drawn for the caption {caption!r})")

    accuracy, recall = figures(results)
    headline("Done")
    print(f"zero-shot accuracy on held-out digits        {accuracy:.4f}  (promised: {PROMISED_ACCURACY} or more)")
    print(f"text-to-image recall@1 on held-out scenes    {recall:.4f}  (promised: {PROMISED_RECALL} or more)")
    print(f"time                                         {time.monotonic() - start:.0f} s")
    print(f"run folder                                   {run}")
    print(f"report                                       {report.as_uri()}")
    return 0 if accuracy >= PROMISED_ACCURACY and recall >= PROMISED_RECALL else 1


def headline(text: str) -> None:
    """A step's title on stdout."""
    print(f"\n=== {text}", flush=True)


def command(*words: str | Path) -> None:
    """Show a command line and run it; a failure ends the demo with code 2."""
    line = [str(word) for word in words]
    print("$", shlex.join(line), flush=True)
    code = subprocess.run(line, check=False).returncode
    if code:
        print(f"demo: the command above failed with exit code {code}", file=sys.stderr)
        sys.exit(2)


def held_out_scene(folder: Path, target: Path) -> tuple[Path, str]:
    """Write the first held-out scene of two different digits side by side to `target`; (its path, its caption)."""
    from clip_eval.wds import open_dataset, read_member

    for sample in open_dataset(folder).samples:
        caption = read_member(sample, "txt").decode("utf-8")
        left, found, right = caption.partition(LEFT_OF)
        if found and left != right:
            target.write_bytes(read_member(sample, "png"))
            return target, caption
    raise SystemExit(f"demo: {folder} holds no scene of two different digits side by side")


def only_core(python: str) -> None:
    """Say which of the four packages the interpreter `python` has."""
    code = (
        "import importlib.util as u; names = ('clip_core', 'clip_hub', 'clip_eval', 'clip_train');"
        "print(*(name for name in names if u.find_spec(name)))"
    )
    found = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    print(f"{python} has: {', '.join(found)}", flush=True)


def figures(results: Path) -> tuple[float, float]:
    """Zero-shot accuracy and text-to-image recall@1 from the records that clip-eval wrote."""
    metrics: dict[str, dict[str, float]] = {}
    for path in results.glob("*.json"):
        metrics.update(json.loads(path.read_text(encoding="utf-8"))["metrics"])
    return metrics["acc1"]["value"], metrics["image_retrieval_recall@1"]["value"]


if __name__ == "__main__":
    sys.exit(main())
