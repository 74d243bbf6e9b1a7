"""A verb's words, read once by argparse: its names and numbers of words are checked before anything heavy is imported."""

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ._fields import IMAGES, data_kinds
from ._recipes import read_yaml, recipe_file
from ._verb import Argument, FilesOr, Verb, meant


class Parser(argparse.ArgumentParser):
    """Says what is wrong in the same way as everything else does."""

    def error(self, message):
        raise ValueError(f"{message} ({self.prog} --help explains)")


class _Help(argparse.Action):
    """Shows the options of the data that were named before it."""

    def __init__(self, verb: Verb, **options):
        super().__init__(**options, nargs=0)
        self.verb = verb

    def __call__(self, parser, namespace, values, option_string=None):
        args = vars(namespace)
        kind = kind_of_data(self.verb, args, _recipes(args).values()) or IMAGES
        parser_of(self.verb, kind, strict=True).print_help()
        parser.exit()


def parser_of(verb: Verb, kind: str | None = None, strict: bool = False, choices: bool = False) -> Parser:
    """The parser of a verb. Where jsonargparse will read the values, it keeps all words that an option got in a list.

    Args:
        verb: the declaration.
        kind: of data; with None the options of all kinds are known.
        strict: whether words that must be there are asked for, as help shows them; otherwise `Verb.first` says it in the verb's words.
        choices: whether values are limited to those that completion offers.
    """
    words = [each.key.upper() + " ..." * bool(each.nargs) for each in verb.arguments if not each.is_option]
    usage = " ".join([verb.prog, *words, "[--OPTION VALUE ...]"]) if verb.sections else None
    epilog = verb.free or (_data_sets(verb) if strict and verb.has_data else None)
    texts = {"prog": verb.prog, "usage": usage, "description": verb.help, "epilog": epilog}
    parser = Parser(**texts, add_help=False, allow_abbrev=False)
    parser.add_argument(
        "-h", "--help", action=_Help, verb=verb, default=argparse.SUPPRESS, help="show this help and end"
    )
    for title, arguments in verb.groups(kind):
        group = parser.add_argument_group(title) if title else parser
        for argument in arguments:
            action = group.add_argument(
                *argument.flags, **_options(argument, bool(verb.sections), bool(verb.first) and not strict)
            )
            if choices:
                _offer(action, argument.values() if callable(argument.values) else argument.values)
    return parser


def _data_sets(verb: Verb) -> str:
    """All that data.name may be, since the options above are those of one kind."""
    return f"data sets: {', '.join(data_kinds())}. `{verb.prog} --data.name NAME --help` shows the options of each."


def _options(argument: Argument, typed: bool, lenient: bool) -> dict:
    """What argparse is told of an argument: of a verb whose values jsonargparse reads (typed), or of another; lenient if a word may be missing."""
    options = {"help": argument.help.replace("%", "%%")}
    if typed:
        options["default"] = argparse.SUPPRESS
    if argument.action == "store_true":
        return {**options, "action": "store_true"}
    nargs = ("*" if argument.nargs else "?") if lenient and not argument.is_option else argument.nargs
    options |= {key: value for key, value in (("metavar", argument.metavar), ("nargs", nargs)) if value is not None}
    if not typed:
        return {**options, "type": argument.type, "default": argument.default}
    return {**options, "action": "append"} if argument.is_option else options


def _offer(action: argparse.Action, values):
    """Tells shtab what completes the value of an option."""
    if isinstance(values, (str, FilesOr)):
        action.complete = values if isinstance(values, str) else values.in_shells()
    elif values:
        action.choices = [str(value) for value in values]


class Call:
    """A verb with the words that it was given.

    `argv` are all words, with underscores in the names of options; `args` what became of them, see `parser_of`; `rest` those that argparse
    does not know and the verb takes all the same, such as --model.kwargs.dims [8,8]; `recipes` the contents of what --config names; `kind`
    the kind of data that is meant, None where only a checkpoint can say; `known` the options that may be given.

    Raises:
        ValueError: the words are none that the verb takes, or a recipe is missing or has keys that are no options.
    """

    def __init__(self, verb: Verb, argv: Sequence[str]):
        self.verb, self.argv = verb, spelled(argv)
        namespace, self.rest = parser_of(verb).parse_known_args(self.argv)
        self.args = vars(namespace)
        if verb.first and not self.args.get(verb.arguments[0].key):
            raise ValueError(verb.first)
        self.recipes = _recipes(self.args)
        self.kind = kind_of_data(verb, self.args, self.recipes.values())
        self.known = [
            "-h",
            "--help",
            *(flag for argument in self._all() for flag in argument.flags if argument.is_option),
        ]
        self._check_names()
        for content in self.recipes.values():
            self._check_keys(content)

    def __contains__(self, option: str) -> bool:
        return option in self.args

    def values(self, option: str) -> list[str]:
        """All that an option was given, in order, or the words in a place."""
        given = self.args.get(option, [])
        return given if isinstance(given, list) else [given]

    @property
    def with_files(self) -> list[str]:
        """All words, with the files of recipes that are given by name."""
        words = list(self.argv)
        for place, word in enumerate(words):
            name, equals, value = word.partition("=")
            if name == "--config" and equals:
                words[place] = f"--config={recipe_file(value)}"
            elif place and words[place - 1] == "--config":
                words[place] = str(recipe_file(word))
        return words

    def given(self, section: str) -> set[str]:
        """The options of a section that were given, without its name."""
        return {option.removeprefix(f"{section}.") for option in self.args if option.startswith(f"{section}.")}

    def preceded_by(self, *words: str) -> "Call":
        """With further words in front."""
        return Call(self.verb, [*words, *self.argv])

    def takes(self, name: str) -> bool:
        """Whether the verb has the option --name, or it is an entry of one whose value is a dictionary."""
        return name in self.known or name.startswith(
            tuple(f"{each.name}." for each in self._all() if "dict[" in str(each.type))
        )

    def _all(self):
        return [argument for _, arguments in self.verb.groups(self.kind) for argument in arguments]

    def _check_names(self):
        verb, words = self.verb, self.rest[: self.rest.index("--")] if "--" in self.rest else self.rest
        names = [word.partition("=")[0] for word in words if word.startswith("-")]
        if verb.too_many and words and not words[0].startswith("-"):
            raise ValueError(verb.too_many.format(count=1 + len(words)))
        if verb.free:
            return
        if refused := [verb.refused[name] for name in names if name in verb.refused]:
            raise ValueError(refused[0])
        unknown = [name for name in names if not self.takes(name)]
        unknown += [f"--data.{option}" for option in self.given("data") if f"--data.{option}" not in self.known]
        unknown += words[:1] if not names else []
        if unknown:
            raise ValueError(
                f"unknown option {unknown[0]}; {meant(unknown[0], self.known)} ({verb.prog} --help explains)"
            )

    def _check_keys(self, content):
        """That a recipe holds no keys that are no options; whatever else is wrong with it is said where it is made."""
        for section, value in content.items() if isinstance(content, dict) else ():
            inside = (
                value if isinstance(value, dict) and section in [each.name for each in self.verb.sections] else None
            )
            for key in [section] if inside is None else [f"{section}.{key}" for key in inside]:
                if not self.takes(f"--{key}"):
                    raise ValueError(
                        f"unknown key {key}; {meant(f'--{key}', self.known)} ({self.verb.prog} --help explains)"
                    )


def _recipes(args: dict) -> dict[Path, Any]:
    """What the files hold that --config names."""
    return {path: read_yaml(path) for path in map(recipe_file, args.get("config", []))}


def kind_of_data(verb: Verb, args: dict, recipes: Iterable[Any] = ()) -> str | None:
    """The kind of the data that the options or their recipe name, or else is usual; None where only a checkpoint can say.

    Args:
        verb: the declaration.
        args: what argparse made of the words.
        recipes: contents of recipes.

    Raises:
        ValueError: there are no such data.
    """
    if not verb.has_data:
        return None
    named, kinds = args.get("data.name", []), data_kinds()
    if named and named[-1] not in kinds:
        raise ValueError(f"unknown data set {named[-1]!r} as data.name; {meant(named[-1], kinds)}")
    if not named:
        sections = [content.get("data") for content in recipes if isinstance(content, dict)]
        named = [data["name"] for data in sections if isinstance(data, dict) and data.get("name") is not None]
    if not named:
        return None if any(section.in_checkpoint for section in verb.sections) else IMAGES
    return kinds.get(named[-1]) if isinstance(named[-1], str) else None


def spelled(argv: Sequence[str]) -> list[str]:
    """Underscores for dashes in the names of options, up to a word --."""
    words = list(argv)
    for place in range(words.index("--") if "--" in words else len(words)):
        if words[place].startswith("--"):
            name, equals, value = words[place].partition("=")
            words[place] = f"--{name[2:].replace('-', '_')}{equals}{value}"
    return words
