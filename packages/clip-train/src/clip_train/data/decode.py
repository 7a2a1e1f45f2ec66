"""From one slot of the order to one image tensor and its tokens; what cannot be read is replaced and accounted for.

Shapes: B samples, S tokens. Every random draw is keyed by (seed, epoch, sample), so it does not matter which process
decodes what, or when. What this room leaves out: where the bytes lie (`source`), and the workers (`loader`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch import Tensor

from clip_core import ImageError
from clip_core.errors import DataError
from clip_core.tokenizer import Tokenizer
from clip_train.data.batching import Form
from clip_train.data.images import Images
from clip_train.data.order import Order
from clip_train.data.source import Source
from clip_train.data.spent import Spent, Watch
from clip_train.keyed import AUGMENT, CAPTION, SAMPLE, mix

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["Batch", "Decode", "Decoder", "Skipped", "sample_digest"]

# A data set in which so many samples in a row are bad is not one to train on.
_MOST_SUBSTITUTES = 1000


Decode = Callable[[bytes], "npt.NDArray[np.uint8] | None"]
"""RGB (height, width, 3) of an encoded image with the pixels that Pillow finds; None for what Pillow has to look at."""


class PictureMaker(Protocol):
    """What makes training pictures: `TrainPixels`, or for NaFlex `TrainPatches`."""

    @property
    def thread_safe(self) -> bool:
        """Whether several threads of a process may draw at once."""
        ...

    def open(self, source: bytes | npt.NDArray[np.uint8], *, name: str | None = None) -> Any:
        """A decoded picture."""
        ...

    def draw(self, image: Any, seed: int) -> Images:
        """What the batch gets of it, all draws following from `seed`."""
        ...

    def normalize(self, pixels: Any) -> Images:
        """What the model gets, of a batch that is on its device."""
        ...


class Skipped(NamedTuple):
    """A sample that came up and could not be used; another took its slot."""

    sample: int
    reason: str


class Batch(NamedTuple):
    """What the loop gets for one step."""

    images: Images
    """(B, 3, size, size) uint8, augmented, which the step normalises where it computes (`TrainPixels.normalize`);
    float32 and normalised only where noise was put in after that, with timm's random erasing. With --use-naflex a dict
    of patches, in the same way (`TrainPatches`)."""
    tokens: Tensor
    """(B, S) int64; S is the longest caption of the batch, end-of-text included, at most the context length. Where the
    tower takes whole rows only, it is the context length."""
    lengths: Tensor
    """(B,) int64: tokens of each caption, as cut, end-of-text included; they stay on the CPU."""
    skipped: list[Skipped]
    """The samples that had a slot in this batch and could not be used."""
    truncated: list[int]
    """The samples whose caption was longer than the context."""
    digest: int = 0
    """Below 2**64, of which samples are in the batch, whatever their order: the sum of `sample_digest`."""
    spent: Spent = Spent()
    """What making it took."""


def sample_digest(sample: int) -> int:
    """A number below 2**64 for a sample; sums of them tell sets of samples apart."""
    return mix(SAMPLE, sample)


class Decoder:
    """Makes batches; holds everything that is needed for it and no state, and pickles."""

    def __init__(
        self,
        source: Source,
        order: Order,
        pixels: PictureMaker,
        tokenizer: Tokenizer,
        *,
        whole_rows: bool = False,
        decode: Decode | None = None,
    ) -> None:
        """
        Args:
            source: the samples.
            order: which of them comes when.
            pixels: makes the pictures.
            tokenizer: reads the captions.
            whole_rows: keep the padding behind the longest caption, for a tower that takes no shorter rows.
            decode: tried on an encoded image before Pillow, see `Decode`.
        """
        self.source = source
        self.order = order
        self.pixels = pixels
        self.tokenizer = tokenizer
        self.whole_rows = whole_rows
        self.decode = decode

    def batch(self, slots: Iterable[tuple[int, int]]) -> Batch:
        """The samples at `slots`, each an (epoch, position).

        With timm's steps it draws from the global generators of torch, `random` and NumPy, which it leaves in the state
        of the last sample's key. Raises `DataError` when the storage fails, or when no usable sample is left.
        """
        images: list[Images] = []
        captions: list[str] = []
        indices: list[int] = []
        skipped: list[Skipped] = []
        watch = Watch()
        for epoch, position in slots:
            index = self.order.sample(epoch, position)
            sample = self._decode(self.order.occasion(epoch, position), index, watch)
            if isinstance(sample, str):
                skipped.append(Skipped(index, sample))
                index, sample = self._substitute(epoch, position, sample, watch)
            images.append(sample[0])
            captions.append(sample[1])
            indices.append(index)
        stacked = self._stacked(images)
        watch.mark("augment")
        tokens, lengths, truncated = self._tokenize(captions)
        watch.mark("tokenise")
        return Batch(
            stacked,
            tokens,
            lengths,
            skipped,
            [indices[row] for row in truncated],
            sum(map(sample_digest, indices)) & (1 << 64) - 1,
            watch.spent(),
        )

    def batch_of(self, form: Form, slots: Iterable[tuple[int, int]]) -> Batch:
        """As `batch`, with the images cut in this form; only of a decoder that cuts them (`naflex`)."""
        raise NotImplementedError

    def _stacked(self, images: list[Images]) -> Images:
        return torch.stack(images)

    def _substitute(self, epoch: int, position: int, reason: str, watch: Watch) -> tuple[int, tuple[Images, str]]:
        # A bad substitute is not counted here: it has a slot of its own in this pass and is counted there.
        attempts = min(self.order.count, _MOST_SUBSTITUTES)
        for attempt in range(attempts):
            index = self.order.substitute(epoch, position, attempt)
            sample = self._decode(self.order.occasion(epoch, position), index, watch)
            if not isinstance(sample, str):
                return index, sample
        label = self.source.label(self.order.sample(epoch, position))
        raise DataError(f"{label}: {reason} None of {attempts} other samples tried in its place can be used either.")

    def _decode(self, occasion: int, index: int, watch: Watch) -> tuple[Images, str] | str:
        """Image and caption of a sample, or why it cannot be used."""
        try:
            data, text = self.source.read(index, mix(CAPTION, self.order.seed, occasion, index))
            watch.mark("read")
            caption = text.decode("utf-8").strip()
            if not caption:
                return "the caption is empty."
            array = None if self.decode is None else self.decode(data)
            image = self.pixels.open(data if array is None else array, name=self.source.label(index))
            watch.mark("decode")
            drawn = self.pixels.draw(image, mix(AUGMENT, self.order.seed, occasion, index) >> 1)
            watch.mark("augment")
            return drawn, caption
        except UnicodeDecodeError as error:
            return f"the caption is not UTF-8 ({error.reason} at byte {error.start})."
        except ImageError as error:
            return str(error)

    def _tokenize(self, captions: list[str]) -> tuple[Tensor, Tensor, list[int]]:
        """(B, S) tokens, how many each row has, and the rows that were cut."""
        tokens, lengths = self.tokenizer.tokenize(captions)
        kept = lengths.clamp(max=tokens.shape[1])
        cut = (lengths > tokens.shape[1]).nonzero().flatten().tolist()
        # Padding beyond the longest text never reaches the features of a causal tower that is read at the end of
        # text, so it is not even computed.
        return tokens if self.whole_rows else tokens[:, : int(kept.max())].contiguous(), kept, cut
