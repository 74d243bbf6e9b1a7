"""The command `spikeformers`: each verb is a door to one function of the library, declared in a file of its own."""

import contextlib
import importlib.metadata
import importlib.util
import signal
import sys
import warnings

from .._install import command_for
from ._parser import Call
from ._verb import Verb
from .completion import COMPLETION, HELP, unknown_verb
from .convert import CONVERT
from .doctor import DOCTOR
from .eval_ import EVAL
from .import_ import IMPORT
from .list_ import LIST
from .predict import PREDICT
from .profile import COMPARE, PROFILE
from .shard import SHARD
from .train import TRAIN

VERBS = {
    verb.name: verb
    for verb in (TRAIN, EVAL, PROFILE, COMPARE, CONVERT, PREDICT, LIST, IMPORT, SHARD, DOCTOR, COMPLETION, HELP)
}


def main(argv: list[str] | None = None) -> int:
    """Runs a command line (sys.argv by default) and returns its exit code: 0, 2 for what the user can put right, which is
    said in one line on stderr, 130 after Ctrl-C, or 128 + N after another signal N that ends a run and keeps its state."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        print("usage: spikeformers VERB ... (spikeformers VERB --help explains)\n")
        for verb in VERBS.values():
            print(f"  {verb.name:10} {verb.help}")
        return 0 if argv else 2
    if argv[0] == "--version":
        print(importlib.metadata.version("spikeformers"))
        return 0
    try:
        if argv[0] not in VERBS:
            raise unknown_verb(argv[0], VERBS)
        with _plain_warnings():
            _run(VERBS[argv[0]], argv[1:])
        return 0
    except SystemExit as error:  # argparse has shown its help
        return error.code
    except BrokenPipeError:  # the reader of `spikeformers list | head` has seen enough
        sys.stdout = None
        return 0
    except KeyboardInterrupt as error:
        if str(error):
            print(f"\nspikeformers: stopped; {error}", file=sys.stderr)
        return 128 + getattr(error, "signal", signal.SIGINT)
    except (ValueError, OSError) as error:
        message = str(error)
        if message.startswith("Caught "):  # in a worker of a DataLoader, whose traceback ends in what happened
            message = message.rstrip().rpartition("\n")[2].partition(": ")[2]
        print(f"spikeformers: {' '.join(message.split())}", file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
        reason = " ".join(str(error).split())[:200]
        print(
            f"spikeformers: out of memory{': ' * bool(reason)}{reason}; give fewer or smaller samples at once",
            file=sys.stderr,
        )
        return 2


def _run(verb: Verb, argv):
    call = Call(verb, argv)
    extra, *modules = verb.needs or ("",)
    if missing := [name for name in modules if not importlib.util.find_spec(name)]:
        raise ValueError(f"this needs {', '.join(missing)}, not installed: {command_for(extra)}")
    verb.run(call)


def _out_of_memory(error):
    """Whether Python, or torch on some device, could not get the memory it asked for; torch says so in words only."""
    words = str(error)
    return isinstance(error, MemoryError) or "can't allocate memory" in words or "out of memory" in words


@contextlib.contextmanager
def _plain_warnings():
    """Warnings as one line for people, without the line of code that they come from."""

    def show(message, *_, **__):
        print(f"spikeformers: warning: {' '.join(str(message).split())}", file=sys.stderr)

    before, warnings.showwarning = warnings.showwarning, show  # Lightning replaces the formatter
    try:
        yield
    finally:
        warnings.showwarning = before
