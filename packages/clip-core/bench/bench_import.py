"""How long `import clip_core` takes, beside `import torch` alone and `import open_clip`, each in a fresh process."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

MODULES = ("torch", "clip_core", "open_clip")


def seconds(module: str) -> float:
    """Wall-clock seconds of a fresh interpreter that imports `module` and nothing else."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="interleaved rounds (default 7)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()

    for module in MODULES:  # warms the file cache
        seconds(module)
    rounds = [{module: seconds(module) for module in MODULES} for _ in range(options.rounds)]
    median = {module: statistics.median(row[module] for row in rounds) for module in MODULES}
    rows = [
        {"case": f"import {module}", "seconds": median[module], "ratio": median[module] / median["torch"]}
        for module in MODULES
    ]
    print(f"{'':<18} {'seconds':>8} {'x torch':>8}")
    for row in rows:
        print(f"{row['case']:<18} {row['seconds']:>8.2f} {row['ratio']:>8.2f}")
    if options.json:
        machine = {"python": platform.python_version(), "machine": platform.machine(), "system": platform.system()}
        options.json.write_text(json.dumps({"bench": "import", "machine": machine, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
