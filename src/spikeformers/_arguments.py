"""Arguments of constructors, checked against the types that their signatures state: whole numbers, numbers, words, sequences of them."""

import functools
import inspect
import math
import numbers
import operator
import types
import typing
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ._options import LARGEST_SIZE, shown
from ._ranges import Range

MOST = LARGEST_SIZE
"""Of whole numbers without another limit."""


Count = typing.Annotated[int, Range(1)]
Index = typing.Annotated[int, Range(0)]
Steps = typing.Annotated[int, Range(1, 10_000)]
Positive = typing.Annotated[float, Range(above=0)]
Ratio = typing.Annotated[float, Range(above=0, most=1024)]
Share = typing.Annotated[float, Range(0, below=1)]


def checked(function: Callable) -> Callable:
    """Decorator of a constructor or a function that makes a model: it sees its arguments only once they are what its signature says.

    Numbers of NumPy become Python's, and 0 and 1 truth values where those are meant. An argument without annotation, or with one
    that this module does not know, is passed on as it is.

    Raises, when called:
        ValueError: an argument is of another type or out of range; the message names it.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def with_checked(*args, **kwargs):
        try:
            given = signature.bind(*args, **kwargs)
        except TypeError:  # Python's own words say what is missing or too much
            return function(*args, **kwargs)
        fitting = _fitting(function, given.arguments)
        given.arguments.update(fitting)
        return function(*given.args, **given.kwargs)

    return with_checked


def check_arguments(function: Callable, arguments: Mapping[str, object]) -> dict[str, object]:
    """The arguments as `function`, of which only the signature is read, is to get them; see `checked`."""
    if isinstance(function, type):
        function = function.__init__
    return {**arguments, **_fitting(inspect.unwrap(function), arguments)}


def check_argument(name: str, value: object, kind: object) -> object:
    """The value as `kind`, an annotation, wants it.

    Args:
        name: of the argument, for the message.
        value: what was given.
        kind: its annotation.

    Raises:
        ValueError: it is of another type or out of range.
    """
    try:
        return _as(kind, value)
    except TypeError:
        raise ValueError(f"{name} must be {_words(kind)}, not {shown(value)}") from None
    except _OutOfRange as error:
        raise ValueError(f"{name} must be {error}, not {shown(value)}") from None


class _OutOfRange(ValueError):
    """Of the right type; the message says what the number must be."""


def _fitting(function: Callable, arguments: Mapping[str, object]) -> dict[str, object]:
    return {
        name: check_argument(name, arguments[name], kind)
        for name, kind in _kinds(function).items()
        if name in arguments
    }


@functools.cache
def _kinds(function: Callable) -> dict[str, object]:
    """Annotations of all arguments but *args and **kwargs. There are as many entries as functions that are checked."""
    plain = [
        p.name
        for p in inspect.signature(function).parameters.values()
        if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    hints = typing.get_type_hints(function, include_extras=True)
    return {name: hints[name] for name in plain if name in hints and _is_known(hints[name])}


def _is_known(kind: object) -> bool:
    """Whether a kind consists of numbers and words: whoever takes modules and functions says himself what is wrong with them."""
    parts = typing.get_args(kind)
    if typing.get_origin(kind) is typing.Annotated:
        return _is_known(parts[0])
    if parts:
        return typing.get_origin(kind) is typing.Literal or all(
            _is_known(part) for part in parts if part is not Ellipsis
        )
    return kind in (int, float, bool, str, type(None))


def _as(kind: object, value: object) -> object:
    """The value as `kind` wants it; TypeError if it is none of them."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        limits = [part for part in parts[1:] if isinstance(part, Range)]
        try:
            value = _as(parts[0], value)
        except _OutOfRange as error:  # its own bound may be a narrower one
            raise _OutOfRange(next(filter(None, (each.broken(value) for each in limits)), str(error))) from None
        for each in limits:
            if bound := each.broken(value):
                raise _OutOfRange(bound)
        return value
    if origin in (typing.Union, types.UnionType):
        for part in parts:
            try:
                return _as(part, value)
            except TypeError:
                continue
        raise TypeError
    if origin is typing.Literal:
        if not any(type(value) is type(part) and value == part for part in parts):
            raise TypeError
        return value
    if origin in (tuple, list, Sequence):
        if not isinstance(value, Sequence) or isinstance(value, (str, bytes, bytearray)):
            raise TypeError
        fixed = origin is tuple and (len(parts) != 2 or parts[1] is not Ellipsis)
        if fixed and len(value) != len(parts):
            raise TypeError
        try:
            values = [
                _as(part, item) for part, item in zip(parts if fixed else [parts[0]] * len(value), value, strict=True)
            ]
        except _OutOfRange as error:
            raise _OutOfRange(f"{_words(kind)}, each {error}") from None
        return values if isinstance(value, list) else tuple(values)
    if kind is int:
        if isinstance(value, bool):
            raise TypeError
        value = operator.index(value)
        if abs(value) > MOST:
            raise _OutOfRange(f"at most {MOST:,}")
        return value
    if kind is float:
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise TypeError
        try:
            same = float(value)
        except OverflowError:
            same = math.inf
        if not math.isfinite(same):
            raise _OutOfRange("a finite number")
        return value if type(value) is int else same
    if kind is bool:
        if not isinstance(value, (bool, np.bool_)) and operator.index(value) not in (0, 1):
            raise TypeError
        return bool(value)
    if not isinstance(value, kind):
        raise TypeError
    return value


def _words(kind: object, many: bool = False) -> str:
    """What `kind` is called in a sentence."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return _words(parts[0], many)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_words(part) for part in parts)
    if origin is typing.Literal:
        return f"one of {', '.join(map(str, parts))}"
    if origin in (tuple, list, Sequence):
        count = f"{len(parts)} " if origin is tuple and parts[-1] is not Ellipsis else ""
        return f"a list of {count}{_words(parts[0], True)}"
    names = {
        int: ("a whole number", "whole numbers"),
        float: ("a number", "numbers"),
        bool: ("True or False", "True or False"),
        str: ("a string", "strings"),
        type(None): ("None", "None"),
    }
    return names[kind][many]
