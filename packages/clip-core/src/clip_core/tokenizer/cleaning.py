"""What is done to a text before it is split into tokens, and how to do nothing where nothing is to be done.

Every cleaning but "none" begins with CLIP's, which `clean` is; `cleaner` gives the four that configurations name. CLIP
repairs a text with ftfy, resolves HTML entities twice more, then splits it at white space and lowers it. ftfy
alone costs ten times what the rest does here, so texts in which it would only straighten quotes are recognised: plain
ASCII, and what is usual in Western languages. Splitting and lowering are left to the caller.
"""

from __future__ import annotations

import html
import re
import string
from collections.abc import Callable
from typing import Literal

__all__ = ["Cleaning", "canonicalize", "clean", "cleaner"]

Cleaning = Literal["none", "whitespace", "lower", "canonicalize"]

_PUNCTUATION = str.maketrans("", "", string.punctuation)

# ftfy leaves these alone, but for the quotes: printing ASCII and white space, Latin-1, curly quotes, dashes, ellipsis.
# Not Â and Ã, which are mojibake before a space.
_OTHER = re.compile(r"[^\t\n\f\r -~\xa0-\xc1\xc4-\xff–—‘’“”…]")
# Whatever else ftfy takes for mojibake has a Latin-1 character beside another that is not ASCII.
_BESIDE = re.compile(r"[\xa0-\xff][^\x00-\x7f]|[^\x00-\x7f][\xa0-\xff]")
_ENTITY = re.compile(r"&[#0-9A-Za-z]")


def clean(text: str) -> str:
    """The text with mojibake, entities, curly quotes, widths and control characters put right, NFC-normalised.

    Words are those of CLIP's cleaning; white space may differ, and case is unchanged. The result has no lone
    surrogates: ftfy replaces them by U+FFFD, and an entity that spells one gives the same.
    """
    if text.isascii() and text.isprintable() and "&" not in text:
        return text
    if not (_OTHER.search(text) or _ENTITY.search(text) or _BESIDE.search(text)):
        return text.replace("’", "'").replace("‘", "'").replace("“", '"').replace("”", '"')
    import ftfy  # here, because most processes that import clip_core never come this far

    fixed: str = ftfy.fix_text(text)
    return html.unescape(html.unescape(fixed))


def cleaner(cleaning: Cleaning) -> Callable[[str], str]:
    """The function that a configuration calls `cleaning`; see `HfTokenizerConfig`."""
    return _CLEANERS[cleaning]


def canonicalize(text: str, *, keep: str = "") -> str:
    """`text` in lower case, without ASCII punctuation, words apart by one space; "_" is a space (big_vision's SigLIP).

    Every occurrence of `keep`, such as "{}" in a prompt, stays as it is.
    """
    parts = text.replace("_", " ").split(keep) if keep else [text.replace("_", " ")]
    return " ".join(keep.join(part.translate(_PUNCTUATION) for part in parts).lower().split())


def _spaced(text: str) -> str:
    return " ".join(clean(text).split())


def _lowered(text: str) -> str:
    return _spaced(text).lower()


def _canonical(text: str) -> str:
    return canonicalize(clean(text))


def _untouched(text: str) -> str:
    """`text`, but for lone surrogates: surrogate pairs become their character and the rest U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


_CLEANERS: dict[Cleaning, Callable[[str], str]] = {
    "none": _untouched,
    "whitespace": _spaced,
    "lower": _lowered,
    "canonicalize": _canonical,
}
