"""Recipes as files: YAML of a size that recipes have."""

import difflib
from pathlib import Path
from typing import Any

from .._files import read_text
from ._fields import PACKAGE

LARGEST_RECIPE = 2**20  # bytes


def shipped_recipes() -> dict[str, Path]:
    """The recipes that are installed with the library, by name."""
    return {path.stem: path for path in sorted((PACKAGE / "recipes").glob("*.yaml"))}


def recipe_file(named: str) -> Path:
    """The file that --config names: a path, or the name of a recipe that ships, such as digits, which recipes/digits.yaml stands for too.

    Raises:
        ValueError: there is no such file.
    """
    path = Path(named)
    if path.exists():
        return path
    if path.parent.name in ("", "recipes") and path.suffix in ("", ".yaml") and path.stem in shipped_recipes():
        return shipped_recipes()[path.stem]
    close = difflib.get_close_matches(path.stem, shipped_recipes(), 3)
    hint = (
        f"; did you mean the recipe {' or '.join(close)}?"
        if close
        else "; spikeformers list --recipes shows those that ship"
    )
    raise ValueError(f"option config: File does not exist: {str(path.absolute())!r}{hint}")


def headline(path: Path) -> str:
    """What a recipe says of itself in its first line."""
    return read_text(path).partition("\n")[0].removeprefix("#").strip().rstrip(".:")


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
        raise ValueError(f"{path} is no file; give a YAML file, or a recipe that ships, such as digits")
    if path.stat().st_size > LARGEST_RECIPE:
        raise ValueError(f"{path} is larger than any recipe; give a YAML file, or a recipe that ships, such as digits")
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
