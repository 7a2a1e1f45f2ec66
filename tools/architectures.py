"""The table of every architecture: `python tools/architectures.py [names ...]` compares them and writes it.

Each name's state dict, parameter count, features and gradients are compared with a peer (`architecture_peers`), or the
cell says why not. Without names all are compared, which takes ten minutes of one core and about `LIMIT_GB` of memory;
with names the other rows stay as they are. `--quick` compares features and gradients only of the smallest name of each
family, and leaves those of the others as they are. The figures of `architectures.csv` are millions of parameters that
OpenCLIP published.
"""

from __future__ import annotations

import argparse
import csv
import gc
import multiprocessing
import re
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

import architecture_peers as peers
import clip_core
from clip_core.coca import CoCa
from clip_core.config import ClipConfig, ResNetConfig, TextConfig, VitConfig

__all__ = ["COLUMNS", "NAMES", "TABLE", "compare", "compare_layout", "main", "read_table", "write_table"]

HERE = Path(__file__).resolve().parent.parent / "packages" / "clip-core" / "tests"
TABLE = HERE / "architectures.md"
COLUMNS = ("keys", "parameters", "features", "gradients")
LIMIT_GB = 5.0
TOLERANCE = 1e-4

_HEAD = f"""# Every architecture, compared

Written by `python tools/architectures.py` with open_clip {peers.open_clip.__version__}, \
timm {peers.timm.__version__}, transformers {peers.transformers.__version__}, torch {torch.__version__.split("+")[0]}.

- **keys**: names and shapes of the whole state dict at full size, against the library named.
- **parameters**: millions, in total and of the image and text tower, against the figures that OpenCLIP published
  ("profile"), or else against the peer's own count at full size.
- **features** of images and texts (of CoCa caption logits too) and **gradients** of every parameter, on the same random
  weights in float32 and evaluation mode: every width, size and option of the name, but two layers in each tower (one
  block in each stage of a ResNet or ConvNeXt) and {peers.SMALL_VOCABULARY} ids. Where the text tower is an encoder of
  transformers, its configuration is clip-core's own. The number is the largest difference: of features of length 1,
  and of gradients in units of the largest in the same tensor, or of a thousandth of the largest of all where that is
  more. A cell passes up to {TOLERANCE:g}.
"""


def _figures() -> dict[str, tuple[str, ...]]:
    with (HERE / "architectures.csv").open(encoding="utf-8", newline="") as lines:
        return {row.pop("name"): tuple(row.values()) for row in csv.DictReader(lines)}


FIGURES = _figures()
NAMES = tuple(FIGURES)


def compare(name: str) -> dict[str, str]:
    """The cells of `name`'s row; each begins with "passed", "left out" or "failed"."""
    return {**compare_layout(name), **compare_outputs(name)}


def compare_layout(name: str) -> dict[str, str]:
    """The cells "keys" and "parameters", at full size and without memory."""
    config = clip_core.get_config(name)
    ours = clip_core.create_model(name, device="meta")
    peer = peers.make_peer(name, config, meta=True)
    return {"keys": _keys(ours, peer), "parameters": _parameters(name, ours, peer)}


def _keys(ours: nn.Module, peer: peers.Peer) -> str:
    wrong = peers.same_layout(ours, peer)
    if wrong:
        return f"failed: {len(wrong)} differ, {wrong[0]} first"
    if peer.whole is not None:
        return "passed: open_clip"
    passed = f"passed: {', '.join(half.source for half in peer.halves)}"
    return f"{passed}; left out: {peer.missing}" if peer.missing else passed


def _parameters(name: str, ours: clip_core.Clip, peer: peers.Peer) -> str:
    total, image = _count(ours), _count(ours.visual)
    decoder = _count(ours.text_decoder) if isinstance(ours, CoCa) else 0
    counts = (total, image, total - image - decoder)
    if any(FIGURES[name]):
        # The profile rounds; the scale of the logits, which is of neither tower, is too small to show.
        wrong = [
            (count, figure) for count, figure in zip(counts, FIGURES[name], strict=True)
            if abs(count / 1e6 - float(figure)) > 0.00501
        ]  # fmt: skip
        if wrong:
            return f"failed: {wrong[0][0] / 1e6:.2f} M, profile {wrong[0][1]}"
        return f"passed: {total / 1e6:.2f} M, profile"
    if peer.whole is not None:
        same = _count(peer.whole) == total
        return f"{'passed' if same else 'failed'}: {total / 1e6:.2f} M, open_clip"
    return f"left out: {total / 1e6:.2f} M, in no profile and not in open_clip 3.3.0"


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def compare_outputs(name: str) -> dict[str, str]:
    """The cells "features" and "gradients", with two layers in each tower."""
    config = peers.small(clip_core.get_config(name))
    size = 12 * _count(clip_core.building.lay_out(config)) / 2**30  # weights once, gradients twice
    if size > LIMIT_GB:
        return dict.fromkeys(("features", "gradients"), f"left out: {size:.0f} GB at two layers, limit {LIMIT_GB:g}")
    torch.manual_seed(0)
    peer = peers.make_peer(name, config, meta=False)
    images, tokens = _inputs(config)
    if peer.whole is None:
        return _compare_halves(config, peer, images, tokens)
    peers.random_weights(peer.whole)
    whole = peer.whole.eval()
    ours = peers.lay_out_with(config, whole.state_dict())
    mine, theirs = _outputs(ours, images, tokens, config), _outputs(whole, images, tokens, config)
    features = _difference(mine, theirs)
    return {
        "features": _verdict(features, "open_clip"),
        "gradients": _verdict(_gradients(ours, whole, mine, theirs), "open_clip"),
    }


def family(config: ClipConfig) -> tuple[object, ...]:
    """Equal for two architectures that are the same code with the same options at other sizes."""
    image, text = config.image, config.text
    if isinstance(image, VitConfig):
        pool = image.attention_pool.mode if image.attention_pool else image.pool
        kind: tuple[object, ...] = (
            pool, image.pre_norm, image.norm_after_pool, image.layer_scale is None, image.positions, image.activation
        )  # fmt: skip
    elif isinstance(image, ResNetConfig):
        kind = ("resnet",)
    else:
        sizes = r"tiny|small|medium|base|x*large2?|giantopt|giant|gigantic|enormous|so400m|so150m2|patch|window|\d|_"
        kind = (re.sub(sizes, "", image.name), image.pool, image.projection)
    if isinstance(text, TextConfig):
        options = (text.activation, text.causal, text.pool, text.class_token, text.projection, text.layer_scale is None)
        return (*kind, *options)
    return (*kind, text.kind, getattr(text, "model_type", ""), text.pool, getattr(text, "projection", ""))


def smallest_of_family() -> dict[str, str]:
    """By name, the one with the fewest parameters in its family."""
    sizes = {name: _count(clip_core.create_model(name, device="meta")) for name in NAMES}
    families = {name: family(clip_core.get_config(name)) for name in NAMES}
    return {
        name: min((other for other in NAMES if families[other] == families[name]), key=lambda other: sizes[other])
        for name in NAMES
    }


def _inputs(config: ClipConfig) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    height, width = clip_core.config.size_pair(config.image.image_size)
    images = torch.randn(1 if config.decoder is None else 2, 3, height, width, generator=generator)
    text = config.text
    length, end = text.context_length, text.vocab_size - 1
    tokens = torch.randint(5, end, (2, length), generator=generator)
    for row, stop in enumerate((length // 2, length - 2)):
        tokens[row, stop] = end if getattr(text, "eos_id", None) is None else text.eos_id
        pad_id = getattr(config.tokenizer, "pad_id", text.pad_id)
        tokens[row, stop + 1 :] = pad_id if pad_id < text.vocab_size else text.pad_id
    return images, tokens


def _outputs(model: nn.Module, images: Tensor, tokens: Tensor, config: ClipConfig) -> list[Tensor]:
    if config.decoder is None:
        return [model.encode_image(images, normalize=True), model.encode_text(tokens, normalize=True)]
    output = model(images, tokens)
    if isinstance(output, dict):
        return [output["image_features"], output["text_features"], output["logits"]]
    return [output.image_features, output.text_features, output.caption_logits]


def _difference(mine: list[Tensor], theirs: list[Tensor]) -> float:
    """Of vectors that are brought to length 1."""
    unit = torch.nn.functional.normalize
    return max(
        float((unit(a, dim=-1) - unit(b, dim=-1)).abs().max().detach()) for a, b in zip(mine, theirs, strict=True)
    )


def _gradients(ours: nn.Module, peer: nn.Module, mine: list[Tensor], theirs: list[Tensor]) -> float:
    for outputs in (mine, theirs):
        generator = torch.Generator().manual_seed(2)
        sum((out * torch.randn(out.shape, generator=generator)).mean() for out in outputs).backward()
    expected = {name: parameter.grad for name, parameter in peer.named_parameters() if parameter.grad is not None}
    found = {name: parameter.grad for name, parameter in ours.named_parameters() if parameter.grad is not None}
    if expected.keys() != found.keys():
        return float("inf")
    least = max(map(_largest, expected.values())) / 1000
    return max(_largest(found[name] - gradient) / max(_largest(gradient), least) for name, gradient in expected.items())


def _largest(tensor: Tensor) -> float:
    return float(torch.linalg.vector_norm(tensor, ord=float("inf")))


def _compare_halves(config: ClipConfig, peer: peers.Peer, images: Tensor, tokens: Tensor) -> dict[str, str]:
    torch.manual_seed(0)
    ours = clip_core.building.build(config)
    peers.random_weights(ours)
    said: dict[str, list[str]] = {"features": [], "gradients": []}
    for half in peer.halves:
        inner = ours.get_submodule(half.prefix.rstrip(".")) if half.prefix else ours
        wanted = half.module.state_dict()
        half.module.load_state_dict({key: value for key, value in inner.state_dict().items() if key in wanted})
        half.module.eval()
        tower = half.prefix.partition(".")[0]
        if tower == "visual":
            mine, theirs = [inner(images)], [half.module(images)]
        elif isinstance(config.text, TextConfig):
            mine, theirs = [ours.text_tower.text_features(tokens)], [half.module(tokens)]
        else:
            seen = (tokens != config.text.pad_id).long()
            mine, theirs = ([m(input_ids=tokens, attention_mask=seen)[0]] for m in (inner, half.module))
        said["features"].append(_verdict(_difference(mine, theirs), half.source))
        holder = nn.Module()
        kept = {name for name, _ in half.module.named_parameters()}
        for name, parameter in inner.named_parameters():
            if name in kept:
                holder.register_parameter(name.replace(".", "/"), parameter)
        named = nn.Module()
        for name, parameter in half.module.named_parameters():
            named.register_parameter(name.replace(".", "/"), parameter)
        said["gradients"].append(_verdict(_gradients(holder, named, mine, theirs), half.source))
    missing = [f"left out: {peer.missing}"] if peer.missing else []
    return {column: "; ".join(sorted(cells) + missing) for column, cells in said.items()}


def _verdict(difference: float, source: str) -> str:
    # Rounded up to one of few values, so that another machine writes the same table.
    bound = next((bound for bound in (1e-6, 1e-5, TOLERANCE) if difference <= bound), None)
    return f"failed: {difference:.0e}, {source}" if bound is None else f"passed: below {bound:.0e}, {source}"


def read_table(path: Path = TABLE) -> dict[str, dict[str, str]]:
    """The cells of each row, by name and column."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    rows = [line.strip("| ").split(" | ") for line in lines]
    return {row[0].strip("`"): dict(zip(COLUMNS, row[1:], strict=True)) for row in rows}


def write_table(rows: dict[str, dict[str, str]], path: Path = TABLE) -> None:
    """Write `rows`, sorted by name, behind the legend."""
    lines = [_HEAD, f"| name | {' | '.join(COLUMNS)} |", f"|{' --- |' * (1 + len(COLUMNS))}"]
    for name in sorted(rows, key=str.lower):
        lines.append(f"| `{name}` | {' | '.join(rows[name][column] for column in COLUMNS)} |")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _compare_quietly(task: tuple[str, bool]) -> dict[str, str]:
    name, outputs = task
    try:
        return compare(name) if outputs else compare_layout(name)
    except Exception as error:
        said = f"failed: {type(error).__name__} {' '.join(str(error).split())[:150]}".replace("|", "/")
        return dict.fromkeys(COLUMNS, said)


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 1 where a cell failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these rows")
    parser.add_argument("--quick", action="store_true", help="features and gradients of one name of each family")
    parsed = parser.parse_args(arguments)
    names = parsed.names or list(NAMES)
    rows = read_table() if TABLE.exists() else {}
    rows = {name: cells for name, cells in rows.items() if name in NAMES}
    compare_layout("coca_roberta-ViT-B-32")  # imports what the processes below would each import again
    compare_layout("convnext_base")
    of_family = smallest_of_family() if parsed.quick else {name: name for name in names}
    tasks = [(name, of_family[name] == name) for name in names]
    gc.freeze()
    # A process for each name gives its memory back.
    with multiprocessing.get_context("fork").Pool(1, maxtasksperchild=1) as pool:
        for name, found in zip(names, pool.imap(_compare_quietly, tasks), strict=True):
            said = f"left out: as `{of_family[name]}`, the same code at other sizes"
            cells = rows[name] = {**dict.fromkeys(COLUMNS, said), **rows.get(name, {}), **found}
            print(f"{name}: {' · '.join(cells.values())}", file=sys.stderr, flush=True)
            write_table(rows)
    failed = [
        name for name in names if any(cell.startswith("failed") or "; failed" in cell for cell in rows[name].values())
    ]
    print(f"{len(names)} compared, {len(failed)} failed: {' '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
