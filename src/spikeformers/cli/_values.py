"""What the words of an option stand for: jsonargparse reads lists, null, recipes and entries of dictionaries."""

import argparse
import re
from typing import Any

from ._parser import Call
from ._verb import Verb, meant


def values_of(call: Call, data: type | None = None, defaults: dict[str, Any] | None = None) -> dict:
    """The values of all options, nested as the sections are; jsonargparse's complaints become one ValueError that says what to do.

    Args:
        call: what was given.
        data: the configuration class of the data, where there are several; without it, there are no options of data.
        defaults: by option, instead of those of the classes.

    Raises:
        ValueError: a value is not of its option's type, or a word is no option.
    """
    parser = typed_parser(call.verb, data)
    parser.set_defaults(defaults or {})
    return _parsed(parser, call.with_files)


def typed_parser(verb: Verb, data: type | None = None):
    """jsonargparse's parser of a verb, which knows the types of all options; see `values_of`."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(prog=verb.prog, exit_on_error=False, allow_abbrev=False)
    for argument in verb.arguments:
        if argument.action:
            parser.add_argument(argument.name, action=argument.action, help=argument.help)
        else:
            count = {} if argument.nargs is None else {"nargs": argument.nargs}
            place = {} if not argument.name.startswith("-") else {"default": argument.default}
            parser.add_argument(argument.name, type=argument.type, help=argument.help, **count, **place)
    for section in verb.sections:
        several = len(section.kinds) > 1
        if data is not None or not several:
            parser.add_class_arguments(
                data if several else section.load(), section.name or None, skip=set(section.without)
            )
    return parser


def _parsed(parser, argv):
    try:
        return parser.parse_args(argv).as_dict()
    except argparse.ArgumentError as error:
        message = str(error)
    except Exception as error:  # it only reads what was written, so whatever it raises is about that
        reason = " ".join(str(error).split())[:300]
        raise ValueError(
            f"the options cannot be read: {type(error).__name__}: {reason} ({parser.prog} --help explains)"
        ) from error
    known = [option for action in parser._actions for option in action.option_strings]
    help_ = f"({parser.prog} --help explains)"
    if found := re.match(r"unrecognized arguments: (\S+)", message):
        raise ValueError(f"unknown option {found[1]}; {meant(found[1], known)} {help_}")
    if found := re.search(r"Group '(.+)' does not accept option '(.+)'", message):
        key = f"--{found[1]}.{found[2]}"
        raise ValueError(f"unknown key {key[2:]}; {meant(key, known)} {help_}")
    if found := re.match(r"Option '(.+)' is not accepted", message):
        raise ValueError(f"unknown key {found[1]}; {meant('--' + found[1], known)} {help_}")
    if "required: model.name" in message:
        raise ValueError(
            "which model? give a recipe, such as --config digits, or --model.name NAME; to continue a run "
            "without naming its recipe, give --resume --run_dir FOLDER"
        )
    message = re.sub(r"<class '(\w+)'>", r"\1", message.replace("typing.", ""))
    raise ValueError(re.sub(r'Parser key "(.*)":', r"option \1:", message) + f" {help_}")
