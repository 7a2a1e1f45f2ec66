"""Which samples are trained on, by the fields of their json member: "similarity > 0.3 and language == 'en'".

An expression is parsed into a few kinds of nodes and walked; nothing of it is ever run as Python. It may hold

    and or not ( )   < <= > >= == !=   in, not in (a list)   text in field   is None, is not None   + - * / on numbers
    numbers, 'texts', true, false, none, lists; fields, also inside of others: exif.width; abs min max len lower

A field that is missing or null, or of another kind than what it is compared with, leaves its comparison undecided, and
`not` of that too: what cannot be decided is not trained on. `or` needs one part that holds. Only `field is None` is
true for a missing one. What this room leaves out: where fields come from (`rows`).
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

from clip_core.errors import ConfigError

__all__ = ["Filter"]


class _Unknown(Exception):
    """A value that is missing or of another kind decides nothing; the argument names the field or the reason."""


_COMPARE: dict[type, Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_COMPUTE: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_CALLS: dict[str, Callable[..., Any]] = {"abs": abs, "min": min, "max": max, "len": len, "lower": str.lower}
_WORDS = {"true": True, "false": False, "none": None}
_LONGEST = 2000


class Filter:
    """An expression that has been checked."""

    def __init__(self, text: str) -> None:
        """Raises `ConfigError` naming the part that is not allowed."""
        self.text = " ".join(text.split())
        if len(self.text) > _LONGEST:
            raise ConfigError(f"--filter has {len(self.text)} characters; allowed: {_LONGEST}.")
        try:
            self._tree = ast.parse(self.text, mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            reason = error.msg if isinstance(error, SyntaxError) else str(error)
            raise ConfigError(f"--filter {text!r} cannot be read: {reason}. {_HINT}") from None
        self.fields: tuple[str, ...] = tuple(dict.fromkeys(_check(self._tree, self.text)))
        """The fields that it looks at."""
        if not self.fields:
            raise ConfigError(f"--filter {text!r} looks at no field of a sample. {_HINT}")

    def __reduce__(self) -> tuple[type[Filter], tuple[str]]:
        return Filter, (self.text,)

    def reason(self, fields: Mapping[str, Any]) -> str:
        """Why a sample with these fields is not trained on: the part that is not met; "" where it is."""
        try:
            return _unmet(self._tree, fields)
        except _Unknown as error:
            return str(error)


_HINT = "Write comparisons of fields with numbers or 'texts', joined by and, or, not."


def _check(node: ast.expr, text: str) -> list[str]:
    """The fields below `node`; raises for what is not allowed."""
    match node:
        case ast.BoolOp(values=values):
            return [field for value in values for field in _check(value, text)]
        case ast.UnaryOp(op=ast.Not() | ast.USub() | ast.UAdd(), operand=operand):
            return _check(operand, text)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _COMPUTE:
            return [*_check(left, text), *_check(right, text)]
        case ast.Compare(left=left, ops=ops, comparators=others):
            for comparison, other in zip(ops, others, strict=True):
                if isinstance(comparison, ast.Is | ast.IsNot) and not _is_none(other):
                    raise ConfigError(f"--filter: {_said(node, text)!r}: `is` is for None only; write ==.")
            return [field for value in (left, *others) for field in _check(value, text)]
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _CALLS and arguments:
            return [field for value in arguments for field in _check(value, text)]
        case ast.List(elts=values) | ast.Tuple(elts=values) | ast.Set(elts=values):
            return [field for value in values for field in _check(value, text)]
        case ast.Constant(value=bool() | int() | float() | str() | None):
            return []
        case ast.Name() | ast.Attribute():
            path = _path(node)
            if path is not None:
                return [] if path.lower() in _WORDS else [path]
    raise ConfigError(f"--filter: {_said(node, text)!r} is not allowed. {_HINT}")


def _unmet(node: ast.expr, fields: Mapping[str, Any]) -> str:
    """The part of a condition that is not met, "" where it is; raises `_Unknown` where that cannot be told."""
    match node:
        case ast.BoolOp(op=ast.And(), values=values):
            # What is not met beats what is not known, so that the order of the parts does not matter.
            unknown: _Unknown | None = None
            for value in values:
                try:
                    unmet = _unmet(value, fields)
                except _Unknown as error:
                    unknown = unknown or error
                    continue
                if unmet:
                    return unmet
            if unknown is not None:
                raise unknown
            return ""
        case ast.BoolOp(values=values):
            unknown = None
            for value in values:
                try:
                    if not _unmet(value, fields):
                        return ""
                except _Unknown as error:
                    unknown = unknown or error
            if unknown is not None:
                raise unknown
            return ast.unparse(node)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return "" if _unmet(operand, fields) else ast.unparse(node)
        case ast.Compare(left=left, ops=ops, comparators=others):
            before = left
            for op, other in zip(ops, others, strict=True):
                if not _holds(before, op, other, fields):
                    return ast.unparse(node)
                before = other
            return ""
    found = _value(node, fields)
    if not isinstance(found, bool):
        raise _Unknown(f"{ast.unparse(node)} is not true or false")
    return "" if found else ast.unparse(node)


def _holds(left: ast.expr, op: ast.cmpop, right: ast.expr, fields: Mapping[str, Any]) -> bool:
    if isinstance(op, ast.Is | ast.IsNot):
        try:
            found = _value(left, fields)
        except _Unknown:
            found = None
        return (found is None) == isinstance(op, ast.Is)
    one, other = _value(left, fields), _value(right, fields)
    if isinstance(op, ast.In | ast.NotIn):
        if not isinstance(other, list | str) or (isinstance(other, str) and not isinstance(one, str)):
            raise _Unknown(f"{ast.unparse(right)} is no list or text")
        return (one in other) == isinstance(op, ast.In)
    if not _is_comparable(one, other):
        raise _Unknown(f"{ast.unparse(left)} and {ast.unparse(right)} are of different kinds")
    return bool(_guarded(lambda: _COMPARE[type(op)](one, other), left))


def _value(node: ast.expr, fields: Mapping[str, Any]) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.List(elts=values) | ast.Tuple(elts=values) | ast.Set(elts=values):
            return [_value(value, fields) for value in values]
        case ast.UnaryOp(op=op, operand=operand) if not isinstance(op, ast.Not):
            found = _number(_value(operand, fields), operand)
            return -found if isinstance(op, ast.USub) else found
        case ast.BinOp(left=left, op=op, right=right):
            one, other = _number(_value(left, fields), left), _number(_value(right, fields), right)
            return _guarded(lambda: _COMPUTE[type(op)](one, other), node)
        case ast.Call(func=ast.Name(id=name), args=arguments):
            given = [_value(argument, fields) for argument in arguments]
            return _guarded(lambda: _CALLS[name](*given), node)
        case ast.Name() | ast.Attribute():
            path = _path(node) or ""
            if path.lower() in _WORDS:
                return _WORDS[path.lower()]
            found = _look_up(fields, path)
            if found is None or (isinstance(found, float) and math.isnan(found)):
                raise _Unknown(f"{path} is missing")
            return found
    return not _unmet(node, fields)


def _look_up(fields: Mapping[str, Any], path: str) -> Any:
    if path in fields:
        return fields[path]
    found: Any = fields
    for part in path.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return None
        found = found[part]
    return found


def _guarded(compute: Callable[[], Any], node: ast.expr) -> Any:
    try:
        return compute()
    except (TypeError, ValueError, ArithmeticError):
        raise _Unknown(f"{ast.unparse(node)} cannot be computed") from None


def _number(value: Any, node: ast.expr) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _Unknown(f"{ast.unparse(node)} is no number")
    return value


def _is_comparable(one: Any, other: Any) -> bool:
    numbers = [isinstance(value, int | float) and not isinstance(value, bool) for value in (one, other)]
    return all(numbers) or (not any(numbers) and type(one) is type(other))


def _path(node: ast.expr) -> str | None:
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=value, attr=name):
            before = _path(value)
            return None if before is None else f"{before}.{name}"
    return None


def _is_none(node: ast.expr) -> bool:
    return (isinstance(node, ast.Constant) and node.value is None) or _path(node) in ("none", "None")


def _said(node: ast.expr, text: str) -> str:
    return ast.get_source_segment(text, node) or ast.unparse(node)
