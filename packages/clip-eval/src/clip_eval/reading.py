"""From a sample to pixels: its bytes, read again where the storage fails for a moment, decoded and preprocessed."""

from __future__ import annotations

import errno

from torch import Tensor

from clip_core import Bundle
from clip_core.errors import DataError, ImageError
from clip_core.images import open_image
from clip_eval.wds import Sample, image_name, read_image_bytes
from clip_hub.retrying import Broken, retrying

__all__ = ["is_transient", "read_pixels"]

_TRANSIENT = {
    errno.EAGAIN,
    errno.EBUSY,
    errno.ECONNABORTED,
    errno.ECONNRESET,
    errno.EHOSTUNREACH,
    errno.EINTR,
    errno.EIO,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.ENOTCONN,
    errno.ESTALE,
    errno.ETIMEDOUT,
}


def is_transient(error: BaseException | None) -> bool:
    """Whether reading may go better the next time: a network disk that does not answer, not a file that is gone."""
    return isinstance(error, TimeoutError | ConnectionError) or (
        isinstance(error, OSError) and error.errno in _TRANSIENT
    )


def read_pixels(bundle: Bundle, sample: Sample) -> Tensor | ImageError:
    """What the model's transform makes of the sample's image, or why it cannot be decoded.

    Raises:
        DataError: the shard cannot be read: not one image's fault, so the image is not left out for it. Where
            `is_transient`, it is tried again first, as often as clip-hub tries a download again.
    """

    def once() -> tuple[bytes, str]:
        try:
            return read_image_bytes(sample)
        except DataError as error:
            if is_transient(error.__cause__):
                raise Broken(str(error)) from error
            raise

    try:
        data, name = retrying(once, image_name(sample))
    except Broken as error:
        raise DataError(str(error)) from error
    try:
        return bundle.preprocess(open_image(data, name=name))
    except ImageError as error:
        return error
