"""The bench for CUDA devices (bench/bench_gpu.py) where there is none: a rehearsal, and cases that break."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

BENCH = Path(__file__).parent.parent / "bench" / "bench_gpu.py"
PARTS = ["ceilings", "attention", "losses", "text", "steps"]


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_gpu", BENCH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = list(sys.path)
    spec.loader.exec_module(module)
    sys.path[:] = before
    return module


def call(*arguments: object) -> subprocess.CompletedProcess[str]:
    # As on a machine where nothing is installed but torch: the script finds its rooms and the package by itself.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(BENCH), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_a_rehearsal_goes_through_every_part(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    done = call("--rehearse", "--json", path)
    assert done.returncode == 0, done.stderr
    content = json.loads(path.read_text())
    assert content["rehearsal"]
    assert list(content["parts"]) == PARTS
    assert {"device", "architecture", "torch", "triton", "date"} <= set(content["machine"])
    for part, rows in content["parts"].items():
        failed = {row["case"]: row["error"] for row in rows if row.get("error", "not rehearsed") != "not rehearsed"}
        assert not failed, (part, failed)
        assert len({row["case"] for row in rows}) == len(rows)
    attention = content["parts"]["attention"][0]
    assert {"operation", "dtype", "length", "channels", "causal", "best_training", "ratio_training"} <= set(attention)
    assert {"flash", "math", "default", "ours"} <= set(attention["times"])
    assert attention["missing"] == {"efficient": "not available", "cudnn": "not available"}
    loss = content["parts"]["losses"][0]
    assert {"loss", "side", "pairs", "features", "ms", "forward_ms", "peak_mib", "tflop_per_s"} <= set(loss)
    assert {row["side"] for row in content["parts"]["text"] if "tower" in row} == {"padded", "packed", "open_clip"}
    assert {row["side"] for row in content["parts"]["steps"]} == {"everything", "torch", "open_clip"}
    assert {"case", "target", "wanted", "found", "met"} == set(content["targets"][0])
    assert {target["met"] for target in content["targets"]} == {None}
    assert done.stdout.count(": not judged: a rehearsal\n") == len(content["targets"])
    assert "met\n" not in done.stdout


def test_what_is_not_reached_is_among_the_targets_as_not_measured(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(BENCH.parent))
    timing = sys.modules["gpu_timing"]  # by the bench
    clock = timing.Clock(True)
    clock.rehearsal = False  # the cases of a device; none of them is run
    parts = {}
    for part in ("losses", "attention", "text"):
        state = tmp_path / part
        room = importlib.import_module(f"gpu_{part}")
        assert timing.work_through(room.cases(clock), state, -1.0, set())
        parts[part], begun = bench.read_state(state)
        assert begun is None
        assert all("not reached" in row["error"] for row in parts[part])
    found = bench.targets(parts)
    assert {target["met"] for target in found} == {None}
    named = {(target["case"], target["target"]) for target in found}
    for loss in ("clip_loss", "siglip_loss"):
        for dim in (512, 768, 1024):
            assert (f"{loss}, 32,768 x {dim}", "times as fast as eager") in named
    assert ("clip_loss, 65,536 x 512", "times as fast as compiled") in named
    assert ("siglip_loss, 131,072 x 1024", "GiB at the peak") in named
    assert {"B/32 image", "text 768", "quick_gelu bfloat16", "packed attention, ViT-L-14"} <= {
        case for case, _ in named
    }
    assert ("text tower of ViT-B-32", "times as fast as padded") in named


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device_it_says_so_and_succeeds(bench: ModuleType, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["bench_gpu.py", "--json", str(tmp_path / "none.json")])
    assert bench.main() == 0
    assert "no CUDA device" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(sys, "argv", ["bench_gpu.py", "speed"])
    with pytest.raises(SystemExit):
        bench.main()
    assert "allowed: ceilings, attention, losses, text, steps" in capsys.readouterr().err


BREAKING = """
import json, os, sys, time
state = sys.argv[1]
known = open(state).read() if os.path.exists(state) else ""
def say(**line):
    with open(state, "a") as file:
        file.write(json.dumps(line) + "\\n")
for name in ("first", "second", "third"):
    if f'"case": "{name}"' in known:
        continue
    say(started={"case": name, "side": "ours"})
    if name == "second":
        os._exit(139)
    if name == "third" and "slow" in sys.argv:
        time.sleep(60)
    say(row={"case": name, "ms": 1.0})
"""


def test_a_case_that_breaks_its_process_is_named_and_the_others_are_run(bench: ModuleType, tmp_path: Path) -> None:
    state = tmp_path / "state.jsonl"
    bench.supervise([sys.executable, "-c", BREAKING, str(state)], state, 30)
    rows, begun = bench.read_state(state)
    assert begun is None
    assert [row["case"] for row in rows] == ["first", "second", "third"]
    assert rows[1] == {"case": "second", "side": "ours", "error": "its process ended with code 139"}
    assert "error" not in rows[0]
    assert "error" not in rows[2]


def test_what_takes_too_long_is_stopped_and_what_was_measured_is_kept(bench: ModuleType, tmp_path: Path) -> None:
    state = tmp_path / "state.jsonl"
    state.write_text('{"row": {"case": "second", "ms": 2.0}}\n')
    bench.supervise([sys.executable, "-c", BREAKING, str(state), "slow"], state, 1, grace=0)
    rows, _ = bench.read_state(state)
    assert [row["case"] for row in rows] == ["second", "first", "third"]
    assert rows[2]["error"] == "not through in time"


def test_a_target_says_met_not_met_or_not_measured(bench: ModuleType) -> None:
    loss = {"loss": "clip_loss", "pairs": 32768, "features": 512, "case": "-"}
    parts = {
        "ceilings": [{"case": "matmul bfloat16", "tflop_per_s": 800.0}],
        "losses": [
            {**loss, "side": "ours", "ms": 10.0, "peak_mib": 1024.0, "tflop_per_s": 500.0},
            {**loss, "side": "eager", "ms": 31.0},
        ],
    }
    found = {row["target"]: (row["found"], row["met"]) for row in bench.targets(parts)}
    assert found == {
        "times as fast as eager": (3.1, True),
        "times as fast as compiled": (None, None),
        "share of the matrix rate": (0.625, True),
        "GiB at the peak": (1.0, False),
    }
