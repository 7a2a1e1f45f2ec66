"""The command line, generated from `config`: open_clip's flag names, abbreviations included, into a `TrainConfig`.

What this room leaves out: the sub-commands and all output (`cli`), and what the fields mean (`config`).
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import types
import typing
from collections.abc import Sequence
from typing import Any, Literal, NoReturn

from clip_core.errors import ConfigError, nearest
from clip_train.__about__ import __version__
from clip_train.beginnings import complete
from clip_train.config import AugmentConfig, KeyValues, TrainConfig, groups
from clip_train.config.files import fields_of
from clip_train.config.spellings import ALIASES, REFUSED_VALUES, SYNONYMS
from clip_train.peer_flags import MAIN, NEVER, NOT_NEEDED, VERSION_3
from clip_train.recipes import Recipe, find

__all__ = ["Given", "build_parser", "not_built", "parse", "read"]

_TITLES = {
    "data": "data",
    "model": "model",
    "naflex": "NaFlex, pictures of any shape",
    "objective": "loss",
    "optim": "optimisation",
    "parallel": "several processes",
    "checkpoint": "checkpoints",
    "evaluation": "evaluation while training",
    "logging": "logging",
    "run": "run",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Given:
    """What a command line states, before the rest gets its default."""

    fields: dict[str, Any]
    """Of all groups by their own names: recipe, then files in their order, then flags, the later over the earlier."""
    origins: dict[str, str]
    """Field -> "flag", or the file or the recipe that its value is from."""
    output: argparse.Namespace
    """`progress`: about output only."""
    recipe: Recipe | None = None
    """What `--recipe` names."""
    not_needed: tuple[str, ...] = ()
    """What to say of flags that change nothing here."""

    def resolve(self) -> TrainConfig:
        """The run."""
        return TrainConfig.of(**self.fields)


def parse(arguments: Sequence[str]) -> tuple[TrainConfig, argparse.Namespace]:
    """The run that `arguments` (without the program's name) describe, and the options that are about output only.

    Raises `ConfigError` for a flag that does not exist (with the nearest names), one that is open_clip's but not
    built here, and a value that is not allowed. `--help` prints and exits, as argparse does.
    """
    given = read(arguments)
    return given.resolve(), given.output


def read(arguments: Sequence[str]) -> Given:
    """What `arguments` state; raises as `parse` does."""
    parser = build_parser()
    namespace, unknown = parser.parse_known_args(complete(arguments, parser._option_string_actions))
    given = vars(namespace)
    refused: list[str] = given.pop("_refused", [])
    not_needed: list[str] = given.pop("_not_needed", [])
    if unknown:
        raise ConfigError(_describe_unknown(unknown))
    if refused:
        raise ConfigError(" ".join(refused))
    output = argparse.Namespace(progress=given.pop("progress", None))
    recipe = find(given.pop("recipe")) if "recipe" in given else None
    over: list[tuple[str, dict[str, Any]]] = [(str(file), fields_of(file)) for file in given.pop("config", [])]
    over.append(("flag", given))
    # A batch that somebody states is theirs; else accumulation makes up for other numbers of processes.
    shared = not any({"batch_size", "accum_freq"} & set(stated) for _, stated in over)
    fields: dict[str, Any] = {}
    origins: dict[str, str] = {}
    first = [("recipe", recipe.fields(_processes() if shared else None))] if recipe else []
    for origin, stated in (*first, *over):
        fields.update(stated)
        origins.update(dict.fromkeys(stated, origin))
    if recipe:
        recipe.check(fields)
    # open_clip's default, on which commands in its README rely.
    fields.setdefault("model", "RN50")
    return Given(fields, origins, output, recipe, tuple(not_needed))


def _processes() -> int:
    """How many processes the launcher started; imported here because the evaluation of models comes with it."""
    from clip_eval.processes import find_place

    return find_place().size


def build_parser() -> argparse.ArgumentParser:
    """The parser; what is not given on the command line is absent from its namespace."""
    parser = _Parser(
        prog="clip-train",
        usage="clip-train --train-data DATA --model NAME [flags]\n"
        "       clip-train recipe NAME --train-data DATA [flags]   (train by a published procedure)\n"
        "       clip-train recipes [NAME]                          (list them, or show one)\n"
        "       clip-train show [RECIPE] [--toml] FLAGS            (print the resolved configuration and stop)\n"
        "       clip-train preflight FLAGS                         (try data, devices and disk, and stop)\n"
        "       clip-train bench-data FLAGS [--seconds N]          (read without training, and say how fast)\n"
        "       clip-train report RUN [RUN] [-o FILE]              (one page of a run, or of two)",
        description="Train a CLIP model. The flags are open_clip's; a unique beginning of a flag is enough.",
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=34, width=118),
        argument_default=argparse.SUPPRESS,
        # `complete` has written beginnings out; argparse's own would stumble over our additions.
        allow_abbrev=False,
    )
    whole = parser.add_argument_group("the whole run")
    whole.add_argument(
        "--recipe",
        metavar="NAME",
        help="begin from a published procedure, which clip-train recipes lists; files and flags win over it",
    )
    whole.add_argument(
        "--config",
        action="append",
        metavar="FILE",
        help="take the configuration from a .toml or .json file or from a run's folder; flags win over it",
    )
    for name, record in groups().items():
        group = parser.add_argument_group(_TITLES[name])
        hints = typing.get_type_hints(record)
        for field in dataclasses.fields(record):
            _add_flag(group, field, hints[field.name])
    output = parser.add_argument_group("output")
    output.add_argument(
        "--progress",
        action=argparse.BooleanOptionalAction,
        help="progress bar on stderr (default: where stderr is a terminal)",
    )
    parser.add_argument("--version", action="version", version=f"clip-train {__version__}")
    for flag, (values, why) in NOT_NEEDED.items():
        counted = 0 if values == 0 else None
        text = f"taken and not needed: {why}"
        output.add_argument(f"--{flag}", action=_NotNeeded, nargs=counted, metavar="N" if values else None, help=text)
    for flag in (*not_built(), *NEVER):
        parser.add_argument(f"--{flag}", action=_Refuse, nargs="*", help=argparse.SUPPRESS)
    return parser


def not_built() -> list[str]:
    """The flags of open_clip that no field of the configuration has: refused by name."""
    built = {*_built(), *NOT_NEEDED}
    return [flag for flag in dict.fromkeys((*VERSION_3, *MAIN)) if flag not in NEVER and flag not in built]


def _built() -> list[str]:
    fields = [field.name for record in groups().values() for field in dataclasses.fields(record)]
    return [name.replace("_", "-") for field in fields for name in (field, *ALIASES.get(field, ()))]


def _add_flag(group: Any, field: dataclasses.Field[Any], annotation: Any) -> None:
    names = [f"--{name.replace('_', '-')}" for name in (field.name, *ALIASES.get(field.name, ()))]
    text = field.metadata["help"].replace("%", "%%")
    if field.default is dataclasses.MISSING:
        text += (
            " (required)" if field.default_factory is dataclasses.MISSING else f" (default: {_say(AugmentConfig())})"
        )
    elif field.default not in (None, "", False):
        text += f" (default: {field.default!r})" if field.default == "\t" else f" (default: {field.default})"
    options = [o for o in _options(annotation) if o is not type(None)]
    first = options[0]
    if annotation is bool:
        action: Any = "store_true" if field.default is False else argparse.BooleanOptionalAction
        group.add_argument(*names, action=action, help=text)
    elif annotation is AugmentConfig:
        group.add_argument(*names, action=_KeyValues, nargs="*", metavar="KEY=VALUE", help=text)
    elif annotation == KeyValues:
        group.add_argument(*names, action=_Pairs, nargs="*", metavar="KEY=VALUE", help=text)
    elif any(typing.get_origin(option) is tuple for option in options):
        _add_several(group, names, options, text)
    elif typing.get_origin(first) is Literal:
        choices = typing.get_args(first)
        metavar = "{" + ",".join(choices) + "}"
        group.add_argument(*names, type=_choice(field.name, choices), metavar=metavar, help=text)
    else:
        metavar = {int: "N", float: "X"}.get(first, field.name.split("_")[-1].upper())
        group.add_argument(*names, type=_plain(field.name, first), metavar=metavar, help=text)


def _add_several(group: Any, names: Sequence[str], options: Sequence[Any], text: str) -> None:
    """A flag with several values: a tuple; or one value or a tuple, as in `int | tuple[int, int]`."""
    single = next((option for option in options if typing.get_origin(option) is not tuple), None)
    several = next(option for option in options if typing.get_origin(option) is tuple)
    kind = typing.get_args(several)[0]
    action = _Tuple if single is None else _OneOrTuple
    # Any number, none too, where the tuple says so.
    count = "*" if typing.get_args(several)[-1] is Ellipsis else "+"
    metavar = {int: "N", float: "X"}.get(kind, names[0].split("-")[-1].upper())
    group.add_argument(*names, action=action, type=kind, nargs=count, metavar=metavar, help=text)


def _options(annotation: Any) -> tuple[Any, ...]:
    is_union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    return typing.get_args(annotation) if is_union else (annotation,)


def _plain(name: str, kind: Any) -> Any:
    """`kind`, or a converter that also knows words that stand for a value."""
    words = SYNONYMS.get(name, {})
    if not words:
        return kind

    def convert(text: str) -> Any:
        return words[text] if text in words else kind(text)

    convert.__name__ = kind.__name__  # in argparse's message
    return convert


def _choice(name: str, choices: Sequence[str]) -> Any:
    def convert(text: str) -> str:
        value: str = SYNONYMS.get(name, {}).get(text, text)
        if value not in choices:
            allowed = ", ".join(choices)
            if name in SYNONYMS:
                allowed += f"; open_clip's {', '.join(SYNONYMS[name])} are taken, too"
            reason = REFUSED_VALUES.get((name, text), f"allowed: {allowed}")
            raise argparse.ArgumentTypeError(f"{text!r}: {reason}")
        return value

    return convert


def _say(aug: AugmentConfig) -> str:
    values = {field.name: getattr(aug, field.name) for field in dataclasses.fields(aug)}
    shown = {k: tuple(round(x, 4) for x in v) if isinstance(v, tuple) else v for k, v in values.items()}
    return " ".join(f"{name}={value!r}" for name, value in shown.items())


def _describe_unknown(unknown: Sequence[str]) -> str:
    flag = next((word for word in unknown if word.startswith("-")), None)
    if flag is None:
        return f"Not understood: {' '.join(unknown)!r}. Every value follows a flag; clip-train --help lists them."
    flag = flag.split("=", 1)[0]
    known = [*_built(), "progress", "config", "recipe"]
    # Without the dashes, which make short names look alike; and no flag that would be refused.
    close = nearest(flag.lstrip("-"), known, count=3)
    hint = f" Did you mean {', '.join(f'--{name}' for name in close)}?" if close else ""
    return f"Unknown flag {flag}.{hint} clip-train --help lists them all."


class _Parser(argparse.ArgumentParser):
    """Raises `ConfigError` where argparse would print its usage and exit."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}. clip-train --help lists the flags.")


class _Refuse(argparse.Action):
    """Notes a flag of open_clip that is not taken; `parse` reports all of them together."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        name = self.option_strings[0].removeprefix("--")
        reason = NEVER.get(name, "clip-train does not have it yet; leave it out, or train with open_clip")
        refused = [*getattr(namespace, "_refused", []), f"--{name}: {reason}."]
        namespace._refused = refused


class _NotNeeded(argparse.Action):
    """Notes a flag of open_clip that changes nothing here; whoever trains is told."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        name = self.option_strings[0].removeprefix("--")
        said = f"--{name} is not needed: {NOT_NEEDED[name][1]}"
        namespace._not_needed = [*getattr(namespace, "_not_needed", []), said]


class _KeyValues(argparse.Action):
    """`key=value` words into a dict, each value a Python literal where it is one."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        pairs: dict[str, Any] = {}
        for word in values:
            key, equals, text = word.partition("=")
            if not equals:
                raise ConfigError(f"{option_string}: {word!r} is not key=value, for example scale='(0.5, 1.0)'.")
            try:
                value = ast.literal_eval(text)
            except (ValueError, SyntaxError):
                value = text
            pairs[key] = tuple(value) if isinstance(value, list) else value
        setattr(namespace, self.dest, pairs)


class _Pairs(_KeyValues):
    """`key=value` words into pairs, in the order of the keys."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        super().__call__(parser, namespace, values, option_string)
        setattr(namespace, self.dest, tuple(sorted(getattr(namespace, self.dest).items())))


class _Tuple(argparse.Action):
    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        setattr(namespace, self.dest, tuple(values))


class _OneOrTuple(argparse.Action):
    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        setattr(namespace, self.dest, values[0] if len(values) == 1 else tuple(values))
