"""Values that people write, in recipes, options and JSON files: what type and range they must have, and what is said where they have not."""

import math
import os
import reprlib
import types
import typing
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from numbers import Integral, Real
from typing import Any, Literal, Union

from ._ranges import Range

MISFITS = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, NotImplementedError),
    *(RecursionError, RuntimeError, TypeError, ValueError),
)
"""What Python and torch raise at arguments of other types or sizes than they should have."""


POSITIVE = Range(above=0)
NOT_NEGATIVE = Range(least=0)
PROBABILITY = Range(least=0, most=1)


def check_options(config: Any, section: str, ranges: Mapping[str, Range]) -> None:
    """Compares the fields of a dataclass with their annotations, and numbers with their ranges.

    Args:
        config: an instance.
        section: what its options are called by, as in training.lr; "" for those without a section.
        ranges: by field; they hold for numbers and for each number in a list. None and numbers that are not finite are none.

    Raises:
        ValueError: an option has another type or is out of its range; which, and what to give instead.
    """
    hints = typing.get_type_hints(type(config))
    for field in fields(config):
        value, name = getattr(config, field.name), f"{section}.{field.name}".removeprefix(".")
        if found := misfit(value, hints[field.name]):
            raise ValueError(f"{name}{found}")
        wanted = ranges.get(field.name)
        for number in value if isinstance(value, (list, tuple)) else [value]:
            if (
                wanted is not None
                and isinstance(number, Real)
                and not isinstance(number, bool)
                and number not in wanted
            ):
                raise ValueError(f"{name} is {shown(value)}; give {wanted.instead_of(number)}")


def misfit(value: Any, hint: Any) -> str:
    """What is wrong with a value as " is 'x'; give a number", after the place inside it, such as "[3]"; "" if it fits.

    Args:
        value: as YAML, JSON or Python hold it: a list and a tuple may stand for each other, and a whole number for a float. Floats
            are finite, and whole numbers have 64 bits.
        hint: a type: numbers, bool, str, None, Literal, a union, list, tuple or dict of these, or a TypedDict. Any is all of these.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return _not_plain(value)
    if origin in (Union, types.UnionType):
        found = [misfit(value, each) for each in arguments]
        inside = [text for text in found if text and not text.startswith(" is ")]
        if not all(found) or inside:
            return "" if not all(found) else inside[0]
    if origin is typing.NotRequired:
        return misfit(value, arguments[0])
    if origin is list and isinstance(value, (list, tuple)):
        return _first(value, [arguments[0]] * len(value))
    if origin is tuple and isinstance(value, (list, tuple)):
        each = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
        return _first(value, each) if len(each) == len(value) else f" is {shown(value)}; give {_words(hint)}"
    if origin in (dict, Mapping) and isinstance(value, dict):
        return next(
            (f" has the key {shown(key)}; keys are words" for key in value if not isinstance(key, str)), ""
        ) or next((f".{key}{found}" for key, item in value.items() if (found := misfit(item, arguments[1]))), "")
    if typing.is_typeddict(hint) and isinstance(value, dict):
        wanted = typing.get_type_hints(hint)
        missing = [key for key in hint.__required_keys__ if key not in value]
        if missing:
            return f" has no {min(missing)}"
        return next(
            (f".{key}{found}" for key in wanted if key in value and (found := misfit(value[key], wanted[key]))), ""
        )
    fits = {
        bool: lambda: isinstance(value, bool),
        int: lambda: isinstance(value, Integral) and not isinstance(value, bool) and abs(value) < 2**63,
        float: lambda: isinstance(value, Real) and not isinstance(value, bool) and _finite(value),
        str: lambda: isinstance(value, (str, os.PathLike)),
        type(None): lambda: value is None,
        dict: lambda: isinstance(value, dict),
    }.get(hint, lambda: False)
    # a word that equals one of the choices, and True, which equals 1, is none of them
    if fits() or (origin is Literal and any(type(value) is type(choice) and value == choice for choice in arguments)):
        return ""
    hint_ = ""
    if isinstance(value, str) and _takes_numbers(hint) and _is_number(value):
        hint_ = f" (in YAML, {value} is a word: write it with a dot, such as 1.0e-3, and without quotes)"
    return f" is {shown(value)}; give {_words(hint)}{hint_}"


def shown(value: Any) -> str:
    """A value for a message, shortened."""
    brief = reprlib.Repr()
    brief.maxstring = brief.maxother = brief.maxlong = 60
    brief.maxlist = brief.maxtuple = 8
    brief.maxlevel = 3
    try:
        return brief.repr(os.fspath(value) if isinstance(value, os.PathLike) else value)
    except Exception:  # a number of too many digits, an object whose own repr fails
        return f"a {type(value).__name__}"


def _first(values, hints):
    return next(
        (
            f"[{place}]{found}"
            for place, (item, hint) in enumerate(zip(values, hints, strict=True))
            if (found := misfit(item, hint))
        ),
        "",
    )


def _not_plain(value):
    if isinstance(value, (list, tuple)):
        return _first(value, [Any] * len(value))
    if isinstance(value, dict):
        return misfit(value, dict[str, Any])
    if value is None or isinstance(value, (bool, str, os.PathLike)) or (isinstance(value, Real) and _finite(value)):
        return ""
    return f" is {shown(value)}; give finite numbers, words, lists or options as {{key: value}}"


def _finite(value):
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number with more than 308 digits
        return False


def _is_number(text):
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _takes_numbers(hint):
    return hint in (int, float) or any(map(_takes_numbers, typing.get_args(hint)))


def _words(hint) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        *others, last = map(str, arguments)
        return f"{', '.join(others)} or {last}" if others else last
    if origin in (Union, types.UnionType):
        return " or ".join(_words(each) for each in arguments)
    if origin is list:
        return f"a list of {_plural(arguments[0])}"
    if origin is tuple:
        return f"a list of {'' if arguments[-1] is Ellipsis else f'{len(arguments)} '}{_plural(arguments[0])}"
    if origin in (dict, Mapping) or hint is dict or typing.is_typeddict(hint):
        return "options as {key: value}"
    return {bool: "true or false", int: "a whole number", float: "a finite number", str: "a word", type(None): "null"}[
        hint
    ]


def _plural(hint) -> str:
    return {int: "whole numbers", float: "numbers", str: "words"}.get(hint, "those that the documentation names")


LARGEST_SIZE = 2**17
"""Of anything in a network's options: more layers, channels, classes or time steps than any has, which would take hours to make."""


@contextmanager
def fitting(what: str) -> Iterator[None]:
    """Inside, a constructor gets what a person or a file says: what it raises at arguments that do not fit becomes one sentence.

    Args:
        what: how the sentence begins, such as "model.kwargs {...} do not fit NAME".

    Raises:
        ValueError: one of MISFITS was raised; ValueErrors stay as they are.
    """
    try:
        yield
    except ValueError:
        raise
    except MISFITS as error:
        reason = " ".join(str(error).split()) or "it has no reason to give"
        raise ValueError(f"{what}: {type(error).__name__}: {reason[:300]}") from error
