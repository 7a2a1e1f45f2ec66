"""What CLIP does to a text before splitting it into words, and when it does nothing.

CLIP repairs a text with ftfy, resolves HTML entities twice more, then splits it at white space and lowers it. ftfy
alone costs several times what tokenizing a caption does, so a text that no repair can touch is recognised and spared.
Lower case and white space are left to the caller, who does both for a whole batch at once.
"""

from __future__ import annotations

import html
import re

__all__ = ["clean", "is_plain"]

# Of pure ASCII, ftfy changes only entities and control characters (terminal escapes begin with one); it turns CR into
# LF too, but both are white space to us. Every entity starts with a letter or "#" after its ampersand.
_TOUCHED = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f]|&[#0-9A-Za-z]")


def is_plain(text: str) -> bool:
    """Whether cleaning leaves the words of `text` alone; may say no to a text that it would leave alone."""
    return text.isascii() and _TOUCHED.search(text) is None


def clean(text: str) -> str:
    """The text with mojibake, entities, curly quotes, widths and control characters put right, NFC-normalised.

    The result never holds a NUL or a lone surrogate: ftfy drops the one and replaces the other by U+FFFD, and an
    entity that spells either becomes U+FFFD.
    """
    if is_plain(text):
        return text
    import ftfy  # here, because most processes that import clip_core never tokenize

    fixed: str = ftfy.fix_text(text)
    return html.unescape(html.unescape(fixed))
