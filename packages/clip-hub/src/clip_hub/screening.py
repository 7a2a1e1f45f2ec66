"""What is never published: optimizer state, pickles and secrets, found by their names and by what is in the files.

Every file of an upload goes through `screen`, those that this package wrote, too: a command line in a model card may
hold a key. What this room leaves out: harmful or private content that is no secret by its form.
"""

from __future__ import annotations

import fnmatch
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from clip_core.errors import ClipError, listed

__all__ = ["Refused", "findings", "screen"]

_BLOCK = 1 << 22
_OVERLAP = 4096
"""Bytes that two neighbouring blocks share, so that a secret on their border is found."""
_LONGEST_HEAD = 100_000_000
"""Bytes of a safetensors file's head, at most: the format allows no more."""

_SECRETS_ARE_IN = (
    ".env .env.* *.env .netrc _netrc .npmrc .pypirc .git-credentials .htpasswd id_rsa* id_dsa* id_ecdsa* id_ed25519* "
    "*.pem *.key *.p12 *.pfx *.jks *.keystore *.kdbx credentials credentials.* service_account*.json token token.txt "
    "stored_tokens .token"
)
_SECRET_NAMES = _SECRETS_ARE_IN.split()
_SECRET_FOLDERS = {".aws", ".ssh", ".gnupg", ".git", ".huggingface", ".kube", "wandb"}
_OPTIMIZERS_ARE_IN = (
    "optimizer* *_optimizer.* *.optim optim.* optim_* scheduler.* scaler.* rng_state* training_args.bin "
    "trainer_state.json *_optim_states.* zero_pp_rank_*"
)
_OPTIMIZER_NAMES = _OPTIMIZERS_ARE_IN.split()
_PICKLE_SUFFIXES = (
    ".pt",
    ".pth",
    ".bin",
    ".ckpt",
    ".pkl",
    ".pickle",
    ".joblib",
    ".dill",
    ".pdparams",
    ".pdopt",
)
_OPTIMIZER_KEYS = re.compile(r"(^|[._])(optimizer|exp_avg(_sq)?|momentum_buffer|param_groups)([._]|$)")

_SECRETS = {
    "a Hugging Face token": rb"\b(?:hf|api_org)_[A-Za-z0-9]{30,}\b",
    "a private key": rb"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY(?: BLOCK)?-----",
    "an AWS key": rb"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "an AWS secret key": rb"(?i:aws_secret_access_key)['\"]?\s*[=:]\s*['\"]?[A-Za-z0-9/+=]{40}",
    "a GitHub token": rb"\b(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{60,})",
    "a Weights & Biases key": rb"(?i:wandb)[^\n]{0,40}\b(?:[0-9a-f]{40}|wandb_v1_[A-Za-z0-9_]{40,})\b",
    "a .netrc entry": rb"\bmachine\s+\S+\s+login\s+\S+\s+password\s+\S+",
    "an API key": rb"\b(?:sk-(?:proj-|ant-)?[A-Za-z0-9_-]{32,}|AIza[0-9A-Za-z_-]{35}|xox[abpr]-[0-9A-Za-z-]{20,})",
    "a password in an address": rb"\b[a-z][a-z0-9+.-]*://[^\s/:@'\"<>{}]+:[^\s/@'\"<>{}]{3,}@[\w.-]+",
    "an authorization header": rb"(?i:authorization):\s*(?i:bearer|basic|token)\s+[A-Za-z0-9._~+/=-]{8,}",
    "a signed address": rb"[?&](?:X-Amz-Signature|X-Goog-Signature|sig)=[A-Za-z0-9%/+]{16,}",
}
_PATTERN = re.compile(b"|".join(b"(?P<s%d>%s)" % (place, rule) for place, rule in enumerate(_SECRETS.values())))


class Refused(ClipError):
    """Files that are never published; names each, why, and what to do."""


def screen(files: Mapping[str, Path | bytes], *, own_token: str | None = None) -> None:
    """Raise `Refused` where one of `files` (path in the repository -> content) must not be published.

    `own_token`: the token that the upload is made with; it may be in no file, whatever it looks like.
    """
    found = [
        f"{name}: {why}" for name, content in files.items() for why in findings(name, content, own_token=own_token)
    ]
    if found:
        raise Refused(
            f"Nothing was uploaded. {listed(found, 8)}. Take this out of the folder or of the text, or leave files out "
            "with --exclude PATTERN. A secret that was in a shared file should be withdrawn in any case."
        )


def findings(name: str, content: Path | bytes, *, own_token: str | None = None) -> Iterator[str]:
    """Why a file must not be published, at most one reason by name and those by content."""
    by_name = _by_name(name)
    if by_name:
        yield by_name
        return
    seen: set[str] = set()
    for position, block in enumerate(_blocks(content)):
        if position == 0:
            yield from _by_head(name, content, block)
        for why in _secrets(block, own_token):
            if why not in seen:
                seen.add(why)
                yield f"holds {why}"


def _by_name(path: str) -> str | None:
    *folders, name = path.lower().split("/")
    if any(fnmatch.fnmatch(name, pattern) for pattern in _SECRET_NAMES) or _SECRET_FOLDERS & set(folders):
        return "is where secrets are kept"
    if any(fnmatch.fnmatch(name, pattern) for pattern in _OPTIMIZER_NAMES):
        return "is the state of an optimizer, by its name"
    if name.endswith(_PICKLE_SUFFIXES):
        return "is a pickle, which runs code when it is opened; weights are published as safetensors"
    return None


def _by_head(name: str, content: Path | bytes, head: bytes) -> Iterator[str]:
    """Pickles under other names, and optimizer state in safetensors."""
    if re.match(rb"\x80[\x02-\x05]", head):
        yield "is a pickle, whatever its name says"
    if head.startswith(b"PK\x03\x04") and isinstance(content, Path):
        try:
            with zipfile.ZipFile(content) as archive:
                members = archive.namelist()
        except zipfile.BadZipFile:
            members = []
        if any(member.endswith((".pkl", ".pickle")) for member in members):
            yield "is an archive with a pickle in it"
    if name.endswith(".safetensors") and len(head) > 8:
        try:
            keys = json.loads(head[8 : 8 + int.from_bytes(head[:8], "little")])
        except ValueError:
            yield "is no safetensors file, whatever its name says"
            return
        state = next((key for key in keys if _OPTIMIZER_KEYS.search(key)), None)
        if state is not None:
            yield f"holds the state of an optimizer ({state})"


def _secrets(block: bytes, own_token: str | None) -> Iterator[str]:
    names = list(_SECRETS)
    for match in _PATTERN.finditer(block):
        yield names[int((match.lastgroup or "s0")[1:])]
    if own_token and own_token.encode() in block:
        yield "the token of this upload"


def _blocks(content: Path | bytes) -> Iterator[bytes]:
    """The bytes in pieces; of a safetensors file the head alone, since numbers spell anything."""
    if isinstance(content, bytes):
        yield content
        return
    with content.open("rb") as stream:
        if content.suffix == ".safetensors":
            size = stream.read(8)
            # Another kind of file under this name states any length; what is cut off is then no JSON and is refused.
            yield size + stream.read(min(int.from_bytes(size, "little"), _LONGEST_HEAD) if len(size) == 8 else 0)
            return
        kept = b""
        while block := stream.read(_BLOCK):
            yield kept + block
            kept = block[-_OVERLAP:]
