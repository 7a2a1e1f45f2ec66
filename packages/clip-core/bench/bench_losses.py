"""Time and extra memory of clip-core's contrastive losses and of open_clip's, forward and backward, on the CPU.

    python bench_losses.py [--batch 16384] [--dim 512] [--rounds 3] [--json FILE]

Each step runs in a process of its own, which reports how far its peak of resident memory rose above that of the
features and their gradients; the two sides take turns, the figures are medians. "busy" are seconds of all processors
that the step had, which other programs beside it change less than the time that went by.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys

from beside import Row, options, report

STEP = """
import json, resource, sys, time, torch
from torch.nn.functional import normalize
side, loss, batch, dim = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
if side == "ours":
    from clip_core import kernels
    function = getattr(kernels, loss)
else:
    from open_clip.loss import ClipLoss, SigLipLoss
    function = {"clip_loss": ClipLoss, "siglip_loss": SigLipLoss}[loss]()
def features(count):
    torch.manual_seed(0)
    image = normalize(torch.randn(count, dim))
    text = normalize(torch.randn(count, dim) + image)
    for side in (image, text):
        side.requires_grad_().grad = torch.zeros_like(side)
    return image, text
scale, bias = (torch.tensor(value, requires_grad=True) for value in (20.0, -10.0))
scalars = (scale,) if loss == "clip_loss" else (scale, bias)
function(*features(256), *scalars).backward()
pairs = features(batch)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start, busy = time.perf_counter(), time.process_time()
value = function(*pairs, *scalars)
value.backward()
seconds, busy = time.perf_counter() - start, time.process_time() - busy
kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
found = {"seconds": seconds, "busy": busy, "mib": kib / 1024}
print(json.dumps({**found, "loss": value.item(), "norm": pairs[0].grad.norm().item()}))
"""


def step(side: str, loss: str, batch: int, dim: int) -> dict[str, float]:
    """What one forward and backward pass took, in a process of its own."""
    command = [sys.executable, "-c", STEP, side, loss, str(batch), str(dim)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{side} {loss} failed:\n{done.stderr}")
    found: dict[str, float] = json.loads(done.stdout)
    return found


def measure(batch: int, dim: int, rounds: int, only: str) -> list[Row]:
    """One row per loss: seconds, busy seconds and MiB of both, and ours as a share of the peer's."""
    rows: list[Row] = []
    for loss in (name for name in ("clip_loss", "siglip_loss") if only in name):
        found: dict[str, list[dict[str, float]]] = {"ours": [], "peer": []}
        for turn in range(rounds):
            for side in ("ours", "peer") if turn % 2 else ("peer", "ours"):
                found[side].append(step(side, loss, batch, dim))
        ours, peer = found["ours"][0], found["peer"][0]
        for key in ("loss", "norm"):
            if abs(ours[key] - peer[key]) > 1e-4 * abs(peer[key]):
                sys.exit(f"{loss}: the two sides differ: {ours} {peer}")
        row: Row = {"case": f"{loss}, {batch:,} pairs of {dim}"}
        for unit in ("seconds", "busy", "mib"):
            mine, theirs = (statistics.median(turn[unit] for turn in found[side]) for side in ("ours", "peer"))
            row |= {f"ours_{unit}": mine, f"peer_{unit}": theirs, f"share_{unit}": mine / theirs}
        rows.append(row)
    return rows


def main() -> None:
    parser = options(__doc__, rounds=3)
    parser.add_argument("--batch", type=int, default=16384)
    parser.add_argument("--dim", type=int, default=512)
    arguments = parser.parse_args()
    if arguments.threads:
        os.environ["OMP_NUM_THREADS"] = str(arguments.threads)  # for the processes
    report("losses", measure(arguments.batch, arguments.dim, arguments.rounds, arguments.only), arguments.json)


if __name__ == "__main__":
    main()
