"""From images to rows of features: threads decode a few batches ahead of the model, and nothing else is held.

Batches begin at the same images whenever a run is resumed, so that with the same `batch_size` the result is that of a
run that was never stopped. Shapes: B images of a batch, D features.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from clip_core.__about__ import __version__
from clip_core.bundle import Bundle
from clip_core.embedding.parquet import require_pyarrow, write_parquet
from clip_core.embedding.sources import ImageFile, find_images, listing_sha256
from clip_core.embedding.store import Store
from clip_core.errors import CheckpointMismatch, ConfigError, DataError, ImageError
from clip_core.images import open_image
from clip_core.model import Clip
from clip_core.schema import JSON

__all__ = ["Summary", "embed", "weights_sha256"]

_BATCHES_AHEAD = 2


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """What is in the files when `embed` is done."""

    rows: int
    dimensions: int
    broken: int
    """Images that could not be decoded; `broken_file` names them with reasons."""
    broken_file: Path
    resumed_at: int
    """How many images an earlier run had dealt with; all of them where the result was there already."""


def embed(
    bundle: Bundle,
    sources: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    normalize: bool = False,
    batch_size: int = 64,
    workers: int = 2,
    progress: bool = False,
) -> Summary:
    """Write the features of all images in `sources` to `output`, float32 (N, D), in the order of their names.

    A run that was stopped, even by a kill, goes on where it was when it is called again with the same arguments;
    another `batch_size` or number of `workers` is allowed then and may change the last digits.

    Args:
        bundle: the model, on the device where it is to run.
        sources: folders, searched to any depth, or tar files.
        output: ends in ".npy" or ".parquet" (with pyarrow). Beside an .npy file stands one with the names, line by
            line; beside both a JSON file with the provenance, and a list of broken images where there are any.
        normalize: divide each row by its length, after it has become float32.
        batch_size: images that go through the model together.
        workers: threads that read and decode; 0 does it between the batches.
        progress: a bar on stderr.

    Raises:
        ConfigError: an argument is not allowed, or the output exists and was made of other images, by another model
            or with other settings.
        DataError: there is no image, or the storage fails.
        CheckpointMismatch: the model gives features that are not finite.
        StorageError: the output cannot be written.
    """
    from tqdm.auto import tqdm

    if batch_size < 1 or workers < 0:
        raise ConfigError(f"{batch_size=}, {workers=}; allowed: 1 or more images in a batch, 0 or more workers.")
    output = Path(output)
    if output.suffix not in (".npy", ".parquet"):
        raise ConfigError(f"The output is called {output}; allowed: names that end in .npy or .parquet.")
    if output.suffix == ".parquet":
        require_pyarrow()
    images = find_images(sources)
    width = bundle.config.embed_dim
    store = Store(output, width, len(images), _settings(bundle, images, normalize))
    resumed_at = store.items
    try:
        bar = tqdm(total=len(images), initial=store.items, desc="embed", unit=" images", disable=not progress)
        with bar:
            for loaded in _load(bundle, images[store.items :], batch_size, workers):
                first = store.items
                broken = [(first + i, str(item)) for i, item in enumerate(loaded) if isinstance(item, ImageError)]
                good = [(images[first + i].name, item) for i, item in enumerate(loaded) if isinstance(item, Tensor)]
                features = _encode(bundle.model, good, normalize) if good else np.empty((0, width), np.float32)
                store.append(len(loaded), features, broken)
                bar.update(len(loaded))
        if not store.complete:
            provenance = {"clip_core": __version__, "torch": torch.__version__, "batch_size": batch_size}
            provenance["device"] = str(bundle.model.logit_scale.device)
            writer = write_parquet if output.suffix == ".parquet" else None
            store.finish([image.name for image in images], provenance, writer)
    finally:
        store.close()
    return Summary(
        rows=store.rows,
        dimensions=width,
        broken=store.items - store.rows,
        broken_file=store.broken_file,
        resumed_at=resumed_at,
    )


def weights_sha256(model: Clip) -> str:
    """A hash of the model's state: of each key, dtype, shape and the bytes, in the order of the keys.

    It does not depend on the file that the weights came from, but on the dtype that they were loaded as.
    """
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _settings(bundle: Bundle, images: Sequence[ImageFile], normalize: bool) -> JSON:
    """What decides the rows; a run is only ever continued with the same."""
    sizes: Counter[torch.dtype] = Counter()  # some weights stay in float32 at any precision
    for value in bundle.model.parameters():
        sizes[value.dtype] += value.numel()
    return {
        "weights_sha256": weights_sha256(bundle.model),
        "model": bundle.config.to_json(),
        "precision": str(sizes.most_common(1)[0][0]).removeprefix("torch."),
        "normalize": normalize,
        "images": len(images),
        "images_sha256": listing_sha256(images),
        "clip_core": __version__,
    }


@torch.inference_mode()
def _encode(model: Clip, images: Sequence[tuple[str, Tensor]], normalize: bool) -> npt.NDArray[np.float32]:
    """Features (B, D) of named pixels (3, height, width), float32."""
    pixels = torch.stack([image for _, image in images]).to(model.logit_scale.device)
    features = model.encode_image(pixels).float()
    if normalize:
        features = F.normalize(features, dim=-1)
    finite = features.isfinite().all(dim=1).tolist()
    if not all(finite):
        raise CheckpointMismatch(
            f"The model gives {images[finite.index(False)][0]} features that are not finite. Its weights are damaged, "
            "or their precision is too short; try fp32."
        )
    rows: npt.NDArray[np.float32] = features.cpu().numpy()
    return rows


def _load(
    bundle: Bundle, images: Sequence[ImageFile], batch_size: int, workers: int
) -> Iterator[list[Tensor | ImageError]]:
    """Batches of pixels (3, height, width), or why there are none, a few batches ahead of whoever takes them."""

    def pixels(image: ImageFile) -> Tensor | ImageError:
        try:
            _check_name(image.name)
            return bundle.preprocess(open_image(image.read(), name=image.name))
        except ImageError as error:
            return error
        except (FileNotFoundError, PermissionError) as error:
            return ImageError(f"Cannot open image {image.name}: {error.strerror}.")
        except OSError as error:
            # A disk or a network that fails would make every image look broken.
            raise DataError(
                f"Cannot read {image.path}: {error}. Run the same command again to go on from here."
            ) from error

    starts = range(0, len(images), batch_size)
    if workers == 0:
        for start in starts:
            yield [pixels(image) for image in images[start : start + batch_size]]
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        ahead: deque[list[Future[Tensor | ImageError]]] = deque()
        try:
            for start in starts:
                ahead.append([pool.submit(pixels, image) for image in images[start : start + batch_size]])
                if len(ahead) > _BATCHES_AHEAD:
                    yield [future.result() for future in ahead.popleft()]
            while ahead:
                yield [future.result() for future in ahead.popleft()]
        finally:
            pool.shutdown(cancel_futures=True)


def _check_name(name: str) -> None:
    """Raises `ImageError` for a name that a list of names cannot hold."""
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise ImageError(f"The name {name!r} is not UTF-8; rename the file.") from error
    if "\n" in name or "\r" in name:
        raise ImageError(f"The name {name!r} has a line break; rename the file.")
