"""Progress bars: on a terminal and nowhere else."""

import contextlib
import io
import os
import pty
import re
import subprocess
import sys
import termios

import pytest

from spikeformers._progress import bold, coloured, watched
from spikeformers.cli import main

DIGITS = [
    *(
        "train",
        "--config",
        "digits",
        "--training.epochs",
        "1",
        "--training.warmup_epochs",
        "0",
        "--trainer.threads",
        "1",
    ),
    *("--model.kwargs.time_steps", "1", "--run_dir"),
]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def on_a_terminal(command, **environment):
    """What a command writes on a terminal of 100 columns."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    process = subprocess.Popen(command, stdout=theirs, stderr=theirs, env={**os.environ, **environment})
    os.close(theirs)
    written = b""
    with contextlib.suppress(OSError):  # Linux's word for the end
        while piece := os.read(ours, 2**16):
            written += piece
    os.close(ours)
    assert process.wait() == 0, written.decode()
    return written.decode()


@pytest.mark.slow
def test_train_shows_a_bar_on_a_terminal_and_none_in_a_pipe(tmp_path, capfd):
    command = [sys.executable, "-m", "spikeformers", *DIGITS]
    shown = on_a_terminal([*command, str(tmp_path / "terminal")], TERM="xterm", NO_COLOR="")
    assert re.search(r"\repoch 1/1: .*%\|.*\| +\d+/1408 \[\d\d:\d\d<.*samples/s", shown)
    assert re.search(r"loss \d+\.\d+, accuracy +\d+\.\d%", shown) and "\rtesting" in shown
    assert "\x1b[1mepoch 1/1  train loss" in shown and "\x1b[32m" in shown  # the best epoch in bold, a green bar

    main([*DIGITS, str(tmp_path / "pipe")])
    out, err = capfd.readouterr()
    assert "epoch 1/1  train loss" in out and not re.search(r"\r|%\||\x1b", out + err)


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_colours_only_where_they_are_wanted(monkeypatch, name, value):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys, "stdout", Terminal())
    assert coloured(sys.stdout) and bold("x") == "\x1b[1mx\x1b[0m" and not coloured(io.StringIO())
    monkeypatch.setenv(name, value)
    assert not coloured(sys.stdout) and bold("x") == "x"


def test_items_are_those_that_are_watched(monkeypatch):
    for stream, shown in ((Terminal(), True), (io.StringIO(), False)):
        monkeypatch.setattr(sys, "stderr", stream)
        assert list(watched([1, 2, 3], "counting", " numbers")) == [1, 2, 3]
        assert list(watched(iter("ab"), "spelling")) == ["a", "b"]
        assert (
            "counting:" in stream.getvalue() and "/3" in stream.getvalue() and "spelling:" in stream.getvalue()
        ) == shown
        assert stream.getvalue().endswith("\r") == shown  # nothing stays
