"""What CLIP does to a text before splitting it into words, and how to do nothing where nothing is to be done.

CLIP repairs a text with ftfy, resolves HTML entities twice more, then splits it at white space and lowers it. ftfy
alone costs ten times what the rest does here, so texts in which it would only straighten quotes are recognised: plain
ASCII, and what is usual in Western languages. Splitting and lowering are left to the caller.
"""

from __future__ import annotations

import html
import re

__all__ = ["clean"]

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
