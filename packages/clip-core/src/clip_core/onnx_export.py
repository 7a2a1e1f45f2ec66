"""Both towers as ONNX files for onnxruntime and its relatives, checked there before they are left behind.

Shapes: B batch, S context length, D features. Transforms and tokenizer stay in Python.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from clip_core.bundle import Bundle
from clip_core.errors import ConfigError, StorageError
from clip_core.model import Clip

__all__ = ["export_onnx"]

logger = logging.getLogger(__name__)

_NEEDED = ("onnx", "onnxscript", "onnxruntime")
_BATCHES = (1, 2, 5)
"""Batches that the check runs; the trace has seen the second only."""


class _Tower(nn.Module):
    """One half of a model as a module of its own: (B, 3, height, width) or (B, S) -> (B, D)."""

    def __init__(self, model: Clip, kind: str, normalize: bool) -> None:
        super().__init__()
        self.model, self.kind, self.normalize = model, kind, normalize

    def forward(self, inputs: Tensor) -> Tensor:
        encode = self.model.encode_image if self.kind == "image" else self.model.encode_text
        return encode(inputs, self.normalize)


def export_onnx(
    source: Bundle | Clip, folder: str | os.PathLike[str], *, normalize: bool = True, tolerance: float = 1e-4
) -> tuple[Path, Path]:
    """Write `image.onnx` and `text.onnx` into `folder`; the two paths.

    `image.onnx` maps `images`, float32 (B, 3, height, width), and `text.onnx` maps `tokens`, int64 (B, S), to
    `features`, float32 (B, D); B is free, S the context length. Both are run in onnxruntime on random inputs, in
    batches of several sizes, and compared with the model; a file that does not agree is not left behind.

    Args:
        source: a bundle or a model with float32 weights on the CPU, in evaluation mode.
        folder: where; made if need be. Files of these names are replaced.
        normalize: put the L2 norm into the files.
        tolerance: largest difference allowed, relative to the largest feature.

    Raises:
        ConfigError: an extra is missing, the model is on another device, in training mode or not in float32, or the
            file computes other features than the model.
        StorageError: it cannot be written there.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"export_onnx needs {', '.join(missing)}: pip install 'clip-core[onnx]'.")
    model = source.model if isinstance(source, Bundle) else source
    if not isinstance(model, Clip):
        raise ConfigError(f"export_onnx got {type(source).__name__}; allowed: a Bundle or its model.")
    weight = next(model.visual.parameters())
    if model.training or weight.device.type != "cpu" or weight.dtype != torch.float32:
        mode = "training" if model.training else "evaluation"
        raise ConfigError(
            f"export_onnx got a model with {weight.dtype} weights on {weight.device} in {mode} mode; allowed: "
            "torch.float32 on the CPU in evaluation mode, as clip_core.load and create_model give it."
        )
    generator = torch.Generator().manual_seed(0)
    height, width = model.visual.image_size
    images = torch.randn(max(_BATCHES), 3, height, width, generator=generator)
    tokens = torch.randint(1, model.vocab_size, (max(_BATCHES), model.context_length), generator=generator)
    target = Path(folder)
    try:
        target.mkdir(parents=True, exist_ok=True)
        # Written beside their place, so that a file with a wrong answer never has the name that others read.
        with tempfile.TemporaryDirectory(prefix=".export-", dir=target) as scratch:
            for kind, argument, inputs in (("image", "images", images), ("text", "tokens", tokens)):
                tower = _Tower(model, kind, normalize)
                _write(tower, argument, inputs, Path(scratch) / f"{kind}.onnx")
                _check(tower, argument, inputs, Path(scratch) / f"{kind}.onnx", tolerance)
            for path in sorted(Path(scratch).iterdir(), reverse=True):  # weights beside a file (.onnx.data) come first
                shutil.move(path, target / path.name)
    except OSError as error:
        raise StorageError(f"Cannot write ONNX files into {folder}: {error}.") from error
    return target / "image.onnx", target / "text.onnx"


@torch.no_grad()
def _write(tower: _Tower, argument: str, inputs: Tensor, path: Path) -> None:
    import onnx
    import onnxscript

    logger.info("Writing %s with onnx %s and onnxscript %s", path.name, onnx.__version__, onnxscript.__version__)
    batch = torch.export.Dim("batch", min=1)
    with _quiet("onnx_ir", "onnxscript"):
        program = torch.export.export(tower, (inputs[: _BATCHES[1]],), dynamic_shapes=({0: batch},))
        exported = torch.onnx.export(
            program,
            dynamo=True,
            input_names=[argument],
            output_names=["features"],
            verbose=False,
        )
        assert exported is not None  # it is with dynamo
        exported.save(path)
    onnx.checker.check_model(path)


@contextlib.contextmanager
def _quiet(*names: str) -> Iterator[None]:
    """Without the exporter's words about its own insides (hundreds of lines); what counts is the check."""
    levels = {name: logging.getLogger(name).level for name in names}
    try:
        for name in names:
            logging.getLogger(name).setLevel(logging.WARNING)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


@torch.no_grad()
def _check(tower: _Tower, argument: str, inputs: Tensor, path: Path, tolerance: float) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for count in _BATCHES:
        expected = tower(inputs[:count])
        found = torch.from_numpy(session.run(None, {argument: inputs[:count].numpy()})[0])
        difference = float((found - expected).abs().max() / expected.abs().max())
        if not difference <= tolerance:  # a NaN is no agreement either
            raise ConfigError(
                f"The ONNX file of the {tower.kind} tower differs from the model by {difference:.1e} of the largest "
                f"feature in a batch of {count}; allowed: {tolerance:.1e}. It was not written."
            )
