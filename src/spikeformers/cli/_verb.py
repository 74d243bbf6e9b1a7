"""What a verb is: one declaration, from which its parser, its help, its completion and its messages follow."""

import difflib
import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

from ._fields import DATA, Field, data_kinds, fields_of

FILE, FOLDER = "file", "directory"  # as shtab calls them


@dataclass(frozen=True)
class FilesOr:
    """Completion by files, and by names that are none."""

    names: tuple[str, ...]

    def in_shells(self) -> dict:
        """As shtab takes it."""
        words = " ".join(sorted(self.names))
        function = f"_spikeformers_files_or_{crc32(words.encode()):08x}"
        return {
            "bash": function,
            "zsh": f"{{_files; compadd -- {words}}}" if words else "_files",
            "fish": f"(__fish_complete_path (commandline -ct); string split ' ' -- '{words}')",
            "preamble": {"bash": f'{function}() {{\n  compgen -f -- "$1"\n  compgen -W "{words}" -- "$1"\n}}'},
        }


@dataclass(frozen=True)
class Argument:
    """A word of a verb, or an option if its name begins with dashes.

    Args:
        name: as it is written, with underscores; dashes are taken for them.
        help: one line.
        type: what the words become, or its text; of a verb with `sections` as jsonargparse reads it, otherwise as argparse does.
        default: if it is not given.
        nargs: as argparse has it.
        action: store_true for an option without a value, config for a recipe.
        metavar: what help calls the value.
        values: what completion offers: FILE, FOLDER, words, or a function that finds words or `FilesOr`.
    """

    name: str
    help: str
    type: Any = str
    default: Any = None
    nargs: str | None = None
    action: str | None = None
    metavar: str | None = None
    values: str | Iterable[str] | Callable[[], Iterable[str] | FilesOr] = ()

    @property
    def is_option(self) -> bool:
        """Otherwise it is a word in its place."""
        return self.name.startswith("-")

    @property
    def flags(self) -> list[str]:
        """The name, and how jsonargparse has a list lengthened."""
        return [self.name, f"{self.name}+"] if "list[" in str(self.type) else [self.name]

    @property
    def key(self) -> str:
        """The name without dashes."""
        return self.name.lstrip("-")


@dataclass(frozen=True)
class Section:
    """Options that are the fields of a configuration class, such as --training.lr.

    Args:
        name: in front of the fields' names; "" for none.
        kinds: the classes, as "training.recipe:Training"; of data there are several.
        without: fields that are no options.
        values: what completion offers, by field; see `Argument`.
        in_checkpoint: whether a checkpoint says which of several kinds is meant, if nothing else does.
    """

    name: str
    kinds: tuple[str, ...]
    without: tuple[str, ...] = ()
    values: Mapping[str, Any] = field(default_factory=dict)
    in_checkpoint: bool = False

    def arguments(self, kind: str | None = None) -> list[Argument]:
        """The options of one kind, or of all together; their types are texts."""
        found: dict[str, Argument] = {}
        for each in (one for kind in ((kind,) if kind in self.kinds else self.kinds) for one in fields_of(kind)):
            if each.name not in self.without:
                found.setdefault(each.name, self._argument(each))
        whole = (
            [Argument(f"--{self.name}", "a YAML file of these options", metavar="FILE", values=FILE)]
            if self.name
            else []
        )
        return [*whole, *found.values()]

    def _argument(self, each: Field) -> Argument:
        known = [] if each.choices else [f"type: {each.kind}"]
        known += [] if each.default is None else [f"default: {each.default}"]
        return Argument(
            f"--{self.name}.{each.name}" if self.name else f"--{each.name}",
            f"{each.help} ({', '.join(known)})",
            type=each.kind,
            metavar="{" + ",".join(each.choices) + "}" if each.choices else each.name.upper(),
            values=self.values.get(each.name, each.choices),
        )

    def load(self, kind: str | None = None) -> type:
        """The class itself."""
        module, _, name = (kind or self.kinds[0]).partition(":")
        return getattr(importlib.import_module(f"spikeformers.{module}"), name)


@dataclass(frozen=True)
class Verb:
    """A verb of the command.

    Args:
        name: the word.
        run: what it does with a `Call`; its docstring is the help.
        arguments: words in their order, and options.
        sections: options of configuration classes. With them, jsonargparse reads all values: lists, null, recipes.
        first: what is said where the first word is missing, or comes after an option.
        too_many: what is said of further words, whose number is {count}.
        refused: what is said of options that other verbs have.
        free: what further options --KEY VALUE are for, if any are taken.
        needs: an extra of the package, and its modules that have to be there.
    """

    name: str
    run: Callable
    arguments: tuple[Argument, ...] = ()
    sections: tuple[Section, ...] = ()
    first: str = ""
    too_many: str = ""
    refused: Mapping[str, str] = field(default_factory=dict)
    free: str = ""
    needs: tuple[str, ...] = ()

    @property
    def help(self) -> str:
        """One line."""
        return self.run.__doc__

    @property
    def prog(self) -> str:
        """What its messages call it."""
        return f"spikeformers {self.name}"

    def groups(self, kind: str | None = None) -> list[tuple[str, list[Argument]]]:
        """All arguments below their headings, those of data of one kind or of all."""
        own = list(self.arguments)
        if any(argument.action == "config" for argument in own):
            own.append(
                Argument("--print_config", "print the recipe with all values, and end", nargs="?", metavar="FLAGS")
            )
        return [("", own), *((section.name or "conversion", section.arguments(kind)) for section in self.sections)]

    @property
    def has_data(self) -> bool:
        """Whether there is a choice of kinds of data."""
        return any(section.kinds == DATA for section in self.sections)


def data_section(in_checkpoint: bool = False) -> Section:
    """The options of all kinds of data; see `Section`."""
    values = {"name": lambda: data_kinds(), "root": FOLDER, "cache": FOLDER}
    return Section("data", DATA, values=values, in_checkpoint=in_checkpoint)


def meant(given: str, known: Iterable[str]) -> str:
    """The names most like what was given; --epochs is like --training.epochs."""
    known = list(known)
    tails = [name for name in known if name.rpartition(".")[2] == given.lstrip("-")]
    close = tails or difflib.get_close_matches(given, known, 3)
    return f"did you mean {', '.join(close)}?" if close else f"there are {', '.join(known)}"
