"""What codes are called in a model card: languages, licences, ways to resize."""

from __future__ import annotations

from collections.abc import Sequence

from clip_core.config import PreprocessConfig, size_pair

__all__ = ["image_words", "language_words", "licence_words", "listing"]

_NAMED = (
    "ar=Arabic bg=Bulgarian bn=Bengali ca=Catalan cs=Czech da=Danish de=German el=Greek en=English es=Spanish "
    "et=Estonian eu=Basque fa=Persian fi=Finnish fr=French ga=Irish gl=Galician he=Hebrew hi=Hindi hr=Croatian "
    "hu=Hungarian id=Indonesian is=Icelandic it=Italian ja=Japanese ka=Georgian ko=Korean la=Latin lt=Lithuanian "
    "lv=Latvian ms=Malay mt=Maltese nl=Dutch no=Norwegian pl=Polish pt=Portuguese ro=Romanian ru=Russian sk=Slovak "
    "sl=Slovenian sq=Albanian sr=Serbian sv=Swedish sw=Swahili ta=Tamil te=Telugu th=Thai tr=Turkish uk=Ukrainian "
    "ur=Urdu vi=Vietnamese zh=Chinese"
)
_LANGUAGES = dict(word.split("=") for word in _NAMED.split())
_LICENCES = {
    "afl-3.0": "Academic Free License 3.0",
    "agpl-3.0": "GNU Affero General Public License 3.0",
    "apache-2.0": "Apache License 2.0",
    "apple-amlr": "Apple Machine Learning Research Model License",
    "apple-ascl": "Apple Sample Code License",
    "bsd-2-clause": "BSD 2-Clause License",
    "bsd-3-clause": "BSD 3-Clause License",
    "cc0-1.0": "Creative Commons Zero 1.0",
    "gpl-3.0": "GNU General Public License 3.0",
    "isc": "ISC License",
    "lgpl-3.0": "GNU Lesser General Public License 3.0",
    "mit": "MIT License",
    "mpl-2.0": "Mozilla Public License 2.0",
    "other": "another licence, which the files state",
    "unlicense": "The Unlicense",
}
_CREATIVE = {"by": "Attribution", "nc": "NonCommercial", "sa": "ShareAlike", "nd": "NoDerivatives"}


def listing(words: Sequence[str]) -> str:
    """Words as a sentence lists them: "a", "a and b", "a, b and c"."""
    return " and ".join(part for part in (", ".join(words[:-1]), *words[-1:]) if part)


def language_words(codes: Sequence[str]) -> str:
    """The names of languages, "English and Italian"; a code without one stays."""
    return listing([_LANGUAGES.get(code, f"`{code}`") for code in codes])


def licence_words(code: str) -> str:
    """What a licence is called, with the Hub's code behind it."""
    name = _LICENCES.get(code, "")
    parts = code.split("-")
    if parts[0] == "cc" and len(parts) > 2 and set(parts[1:-1]) <= set(_CREATIVE):
        name = f"Creative Commons {'-'.join(_CREATIVE[part] for part in parts[1:-1])} {parts[-1]}"
    return f"{name} (`{code}`)" if name else f"`{code}`"


def image_words(preprocess: PreprocessConfig) -> str:
    """How a picture becomes what the model sees."""
    height, width = size_pair(preprocess.size)
    pixels = f"{height} x {width} pixels"
    how = {
        "shortest": f"resized until they cover {pixels}, then cut to the centre",
        "squash": f"resized to {pixels} whatever their shape",
        "longest": f"resized until they fit into {pixels}, the rest filled with grey value {preprocess.fill_color}",
    }
    return f"{how[preprocess.resize_mode]}; {preprocess.interpolation} interpolation"
