"""Recipes as files: YAML of a size that recipes have."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .._files import read_text

LARGEST_RECIPE = 2**20  # bytes


def recipe_files(named: Iterable[str]) -> list[Path]:
    """The files that --config names.

    Raises:
        ValueError: one is not there.
    """
    paths = [Path(name) for name in named]
    for path in paths:
        if not path.exists():
            raise ValueError(
                f"option config: File does not exist: {str(path.absolute())!r} (spikeformers train --help explains)"
            )
    return paths


def must_be_recipes(contents: dict[Path, Any]) -> None:
    """
    Raises:
        ValueError: what a file holds is no recipe.
    """
    from ..training.recipe import must_be_a_recipe

    for path, content in contents.items():
        try:
            must_be_a_recipe({} if content is None else content)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None


def read_yaml(path: Path) -> Any:
    """What a YAML file holds.

    Raises:
        ValueError: it is no such file, or larger than any recipe.
    """
    import yaml

    if not path.is_file():
        raise ValueError(f"{path} is no file; give a YAML file such as recipes/digits.yaml")
    if path.stat().st_size > LARGEST_RECIPE:
        raise ValueError(f"{path} is larger than any recipe; give a YAML file such as recipes/digits.yaml")
    try:
        content = yaml.safe_load(read_text(path))
        if _values(content) > 100_000:
            raise ValueError("it repeats itself, by aliases, more than 100,000 times")
    except (yaml.YAMLError, ValueError, RecursionError, TypeError) as error:  # TypeError: lists as keys
        raise ValueError(f"Problems parsing config {path}: {' '.join(str(error).split())[:300]}") from None
    return content


def _values(content, most=100_001):
    """How many values there are inside, up to `most`: a few lines of aliases stand for millions."""
    count, waiting = 0, [content]
    while waiting and count < most:
        value = waiting.pop()
        count += 1
        waiting += value.values() if isinstance(value, dict) else value if isinstance(value, (list, set)) else ()
    return count
