"""`spikeformers completion` and `spikeformers help`."""

from ._parser import Call, Parser, parser_of
from ._verb import Argument, Verb, meant

SHELLS = {
    "bash": "spikeformers completion bash > ~/.local/share/bash-completion/completions/spikeformers",
    "zsh": 'spikeformers completion zsh > "${fpath[1]}/_spikeformers"',
    "fish": "spikeformers completion fish > ~/.config/fish/completions/spikeformers.fish",
}


def completion(call: Call):
    """Print a script that completes verbs, options, their choices and files in bash, zsh or fish."""
    shell = call.args["shell"]
    if shell not in SHELLS:
        raise ValueError(f"there is no completion for {shell!r}; {meant(shell, SHELLS)}")

    import shtab

    print(shtab.complete(whole_parser(), shell))


def whole_parser() -> Parser:
    """All verbs with all their options, and what their values may be."""
    from . import VERBS

    parser = Parser(prog="spikeformers", allow_abbrev=False)
    parser.add_argument("--version", action="store_true", help="print the version")
    verbs = parser.add_subparsers()
    for verb in VERBS.values():
        whole = parser_of(verb, strict=True, choices=True)
        verbs.add_parser(verb.name, help=verb.help, add_help=False, parents=[whole])
    return parser


def help_(call: Call):
    """Explain the verbs, or one of them."""
    from . import VERBS, main

    verb = call.args["verb"]
    if verb is None:
        main(["--help"])
    elif verb in VERBS:
        main([verb, "--help"])
    else:
        raise unknown_verb(verb, VERBS)


def unknown_verb(name: str, known) -> ValueError:
    """What is said of a verb that there is not."""
    return ValueError(f"unknown verb {name!r}; {meant(name, known)}")


def _verbs():
    from . import VERBS

    return VERBS


COMPLETION = Verb(
    "completion",
    completion,
    arguments=(
        Argument(
            "shell",
            "; ".join(f"{shell}: {how}" for shell, how in SHELLS.items()),
            metavar="{bash,zsh,fish}",
            values=SHELLS,
        ),
    ),
)
HELP = Verb("help", help_, arguments=(Argument("verb", "the verb; all of them if left out", nargs="?", values=_verbs),))
