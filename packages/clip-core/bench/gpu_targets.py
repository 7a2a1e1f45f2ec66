"""What bench_gpu's figures should be on an H200, and whether they are: one line per figure, met or not met."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from gpu_timing import Row

EAGER = {"clip_loss": {512: 3.0, 768: 2.3, 1024: 1.9}, "siglip_loss": {512: 3.5, 768: 2.7, 1024: 2.2}}
"""Times as fast as OpenCLIP's loss in eager torch, from 16k pairs on, by number of features."""
EAGER_AT_8K = 2.0
COMPILED = {512: 1.4, 768: 1.3, 1024: 1.2}
SHARE = 0.6
"""Of the measured rate of a large matrix product, at 32k pairs and above."""
PEAK_GIB = {32768: 0.7, 65536: 1.1, 131072: 2.0}
ATTENTION = {50: 1.8, 77: 1.5}
"""Times as fast as the best of torch's backends, forward and backward, by sequence length."""
MASK_TENSOR = 2.0
PACKED = 4.0
TEXT_TOWER = 3.0
QUICK_GELU = 2.5


def line(case: str, target: str, wanted: float, found: float | None, *, at_most: bool = False) -> Row:
    """One target; `met` is None where the figure was not measured."""
    met = None if found is None else (found <= wanted if at_most else found >= wanted)
    return {"case": case, "target": target, "wanted": wanted, "found": found, "met": met}


def of_losses(rows: Sequence[Row], matmul: float | None) -> Iterator[Row]:
    """Speed beside the peer, share of the matrix rate, memory."""
    times = {(row["loss"], row["pairs"], row["features"], row["side"]): row for row in rows if "loss" in row}
    for (name, pairs, features, side), row in times.items():
        if side != "ours":
            continue
        case, mine = f"{name}, {pairs:,} x {features}", row.get("ms")

        def ratio(other: str, key: tuple[str, int, int] = (name, pairs, features), mine: float | None = mine):
            theirs = times.get((*key, other), {}).get("ms")
            return theirs / mine if theirs and mine else None

        wanted = EAGER_AT_8K if pairs < 16384 else EAGER[name].get(features)
        if wanted and pairs < 131072:  # there the peer does not fit
            yield line(case, "times as fast as eager", wanted, ratio("eager"))
        if name == "clip_loss" and features in COMPILED and 16384 <= pairs < 131072:
            yield line(case, "times as fast as compiled", COMPILED[features], ratio("compiled"))
        if pairs >= 32768:
            rate = row.get("tflop_per_s")
            yield line(case, "share of the matrix rate", SHARE, rate / matmul if rate and matmul else None)
        if pairs in PEAK_GIB:
            peak = row.get("peak_mib")
            found = peak / 1024 if peak is not None else None
            yield line(case, "GiB at the peak", PEAK_GIB[pairs], found, at_most=True)


def of_attention(rows: Sequence[Row]) -> Iterator[Row]:
    """Short sequences and the activation."""
    for row in rows:
        case, training = row["case"], row.get("ratio_training")
        if row.get("operation") == "quick_gelu":
            yield line(case, "times as fast as eager", QUICK_GELU, training)
        elif row.get("operation") == "attention" and row["length"] in ATTENTION:
            yield line(case, "times as fast as the best backend", ATTENTION[row["length"]], training)
            if row["causal"]:
                yield line(case, "times as fast as with a mask tensor", MASK_TENSOR, row.get("ratio_mask_training"))


def of_text(rows: Sequence[Row]) -> Iterator[Row]:
    """Packed against padded."""
    times = {(row["tower"], row["side"]): row.get("ms") for row in rows if "tower" in row}
    for row in rows:
        if row.get("operation") == "packed_attention" and row.get("longest") == 77:
            yield line(row["case"], "times as fast as padded", PACKED, row.get("ratio_training"))
    for name in dict.fromkeys(tower for tower, _ in times):
        packed, padded = (times.get((name, side)) for side in ("packed", "padded"))
        found = padded / packed if packed and padded else None
        yield line(f"text tower of {name}", "times as fast as padded", TEXT_TOWER, found)


def targets(parts: Mapping[str, Sequence[Row]], *, judged: bool = True) -> list[Row]:
    """Every target of the cases of the parts, measured or not; without `judged`, as in a rehearsal, `met` is None."""
    rates = {row["case"]: row.get("tflop_per_s") for row in parts.get("ceilings", [])}
    lines = [
        *of_losses(parts.get("losses", []), rates.get("matmul bfloat16")),
        *of_attention(parts.get("attention", [])),
        *of_text(parts.get("text", [])),
    ]
    return lines if judged else [{**line, "met": None} for line in lines]
