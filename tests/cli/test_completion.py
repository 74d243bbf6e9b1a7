"""Completion: every option of every verb in the script of every shell, and what the shells themselves make of the scripts."""

import os
import pty
import re
import select
import shutil
import subprocess
import time

import pytest
import shtab

from spikeformers import list_models
from spikeformers.cli import VERBS, main
from spikeformers.cli._data import shipped_names
from spikeformers.cli._parser import parser_of
from spikeformers.cli.completion import SHELLS, whole_parser


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    """The scripts' files, by shell."""
    folder = tmp_path_factory.mktemp("scripts")
    for shell in SHELLS:
        (folder / shell).write_text(shtab.complete(whole_parser(), shell))
    return {shell: folder / shell for shell in SHELLS}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with one file and one folder in it."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "mine.ckpt").touch()
    monkeypatch.chdir(tmp_path)


def offered(script: str, shell: str, verb: str) -> set[str]:
    """The options that a script knows for a verb."""
    if shell == "bash":
        return set(re.search(rf"^_shtab_spikeformers_{verb}_option_strings=\((.*)\)$", script, re.MULTILINE)[1].split())
    if shell == "zsh":
        block = re.search(rf"^_shtab_spikeformers_{verb}_options=\($(.*?)^\)$", script, re.MULTILINE | re.DOTALL)[1]
        return {
            flag
            for line in block.splitlines()
            for flag in re.findall(r"(?<![\w.])--?[\w.]+\+?(?=[\[,}])", line.split(":")[0])
        }
    lines = re.findall(rf"_using {verb}' (.*)$", script, re.MULTILINE)
    return {
        "-" * len(dashes) * (2 if dashes == "l" else 1) + name
        for line in lines
        for dashes, name in re.findall(r"(?:^| )-([ls]) (\S+)", line)
    }


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("verb", VERBS)
def test_every_option_is_offered(scripts, shell, verb):
    flags = {flag for action in parser_of(VERBS[verb])._actions for flag in action.option_strings}
    assert flags <= offered(scripts[shell].read_text(), shell, verb)
    assert len(flags) > 100 or verb != "train"


LINES = [
    ("t", {"train"}),
    ("train --training.sched", {"--training.schedule"}),
    ("train --training.schedule ", {"cosine", "poly", "step"}),
    ("train --model.name meta_", set(list_models("meta_*"))),
    ("train --data.name nm", {"nmnist"}),
    ("train --trainer.sync_batchnorm ", {"true", "false"}),
    ("train --config mi", {"mine.ckpt"}),
    ("eval mi", {"mine.ckpt"}),
    ("eval spiking_resnet_edge.", {name for name in shipped_names() if "edge." in name}),
    ("eval mine.ckpt --data.split_", {"--data.split_by"}),
    ("profile mine.ckpt --preset sp", {"spikingformer"}),
    ("convert --spiking ", {"hybrid", "full"}),
    ("completion ", set(SHELLS)),
    ("help sh", {"shard"}),
]


@pytest.mark.parametrize(("line", "answers"), LINES, ids=[line for line, _ in LINES])
def test_bash(scripts, folder, line, answers):
    program = f'source {scripts["bash"]}; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _shtab_spikeformers; printf "%s\\n" "${{COMPREPLY[@]}}"'
    done = subprocess.run(
        ["bash", "--norc", "-c", program, "bash", "spikeformers", *line.split(" ")], capture_output=True, text=True
    )
    assert set(done.stdout.split()) == answers


@pytest.mark.skipif(not shutil.which("fish"), reason="fish is not installed")
@pytest.mark.parametrize(("line", "answers"), LINES, ids=[line for line, _ in LINES])
def test_fish(scripts, folder, line, answers):
    program = f"source {scripts['fish']}; complete -C 'spikeformers {line}'"
    done = subprocess.run(["fish", "--no-config", "-c", program], capture_output=True, text=True)
    assert {answer.split("\t")[0] for answer in done.stdout.splitlines()} == answers


@pytest.mark.skipif(not shutil.which("zsh"), reason="zsh is not installed")
def test_zsh(scripts, folder):
    """In a terminal, as zsh completes nowhere else: Tab writes the only answer, or lists all of them."""
    process, terminal = pty.fork()
    if process == 0:
        os.execvpe("zsh", ["zsh", "-f", "-i"], {**os.environ, "TERM": "dumb", "PS1": "", "COLUMNS": "200"})

    def answer(text, until, seconds=20):
        os.write(terminal, text.encode())
        seen, end = "", time.monotonic() + seconds
        while not re.search(until, seen) and time.monotonic() < end:
            if select.select([terminal], [], [], 0.1)[0]:
                seen += os.read(terminal, 10_000).decode(errors="replace")
        assert re.search(until, seen), seen

    try:
        answer(
            "unsetopt zle_bracketed_paste list_ambiguous; autoload -U compinit; compinit -u -D; echo read''y\r", "ready"
        )
        answer(f"eval \"$(<{scripts['zsh']})\"; echo source''d\r", "sourced")
        for line, answers in LINES:
            several = "".join(rf"(?=[\s\S]*{re.escape(answer)}\b)" for answer in answers)
            only = re.escape(f"spikeformers {line.rpartition(' ')[0]} {min(answers)}".replace("  ", " "))
            answer(f"spikeformers {line}\t", only if len(answers) == 1 else several)
            answer("\x15echo don''e\r", "done")
    finally:
        os.close(terminal)
        os.waitpid(process, 0)


def test_the_command_prints_a_script_and_knows_no_other_shell(capsys):
    assert main(["completion", "csh"]) == 2
    assert "there is no completion for 'csh'; did you mean zsh?" in capsys.readouterr().err
