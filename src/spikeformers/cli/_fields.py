"""The options that a configuration class offers, read from its source: importing it would take seconds, as it stands beside what uses torch."""

import ast
import functools
import re
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
IMAGES = "data.images.options:ImageData"
EVENTS = "data.events.options:EventData"
DATA = (IMAGES, EVENTS, "data.coco.options:CocoData", "data.masks.options:MaskData")
"""All kinds of data, as the configuration classes in `spikeformers.data`."""


@dataclass(frozen=True)
class Field:
    """A field of a configuration class: the text of its annotation and of its default, what a Literal may be, and what the docstring says."""

    name: str
    kind: str
    default: str | None
    choices: tuple[str, ...]
    help: str


@functools.cache
def fields_of(reference: str) -> tuple[Field, ...]:
    """The fields of a class, named as "training.recipe:Training", in the order of its constructor."""
    module, _, name = reference.partition(":")
    source = PACKAGE.joinpath(*module.split(".")).with_suffix(".py").read_text(encoding="utf-8")
    text = re.search(
        rf"^class {name}\b.*?(?=^\S|\Z)", source, re.MULTILINE | re.DOTALL
    )  # the whole file takes ten times as long
    (found,) = ast.parse(text[0]).body
    said = _said(ast.get_docstring(found) or "")
    return tuple(
        Field(
            node.target.id,
            ast.unparse(node.annotation),
            _default(node.value),
            _choices(node.annotation),
            said.get(node.target.id, ""),
        )
        for node in found.body
        if isinstance(node, ast.AnnAssign)
        and isinstance(node.target, ast.Name)
        and "ClassVar" not in ast.unparse(node.annotation)
    )


def _said(docstring):
    """What stands under Args, by argument."""
    _, _, arguments = docstring.partition("Args:\n")
    entries = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", arguments, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}


def _default(node):
    """A default as it is written, where that says something to people: a value, not the call that makes one."""
    try:
        value = None if node is None else ast.literal_eval(node)
    except ValueError:
        return None
    return None if value is None else str(value)


def _choices(annotation):
    """The words that an option may be, where its annotation counts them."""
    literals = (
        node.slice
        for node in ast.walk(annotation)
        if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "Literal"
    )
    words = (str(each.value) for node in literals for each in ast.walk(node) if isinstance(each, ast.Constant))
    return (*(("true", "false") if "bool" in ast.unparse(annotation).split(" | ") else ()), *words)


@functools.cache
def data_kinds() -> dict[str, str]:
    """The configuration class of each data set, by the data set's name."""
    kinds = {name: kind for kind in DATA for field in fields_of(kind) if field.name == "name" for name in field.choices}
    for path in sorted((PACKAGE / "data" / "events" / "datasets").glob("*.py")):
        names = re.findall(r'^@register_dataset\("(\w+)"', path.read_text(encoding="utf-8"), re.MULTILINE)
        kinds |= dict.fromkeys(names, EVENTS)
    return kinds
