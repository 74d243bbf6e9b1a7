"""Signals that end a run, in real processes: what is kept, what is said, and the exit code."""

import os
import signal
import subprocess
import sys
import time

import pytest
import yaml

from spikeformers._signals import SIGNALS, Signals, listening

PROGRAM = "import sys; from spikeformers.cli import main; sys.exit(main())"


@pytest.fixture
def start(config, tmp_path):
    """Starts a long run in a process of its own and waits until it trains."""
    config["training"]["epochs"] = 5000
    config["trainer"] |= {"threads": 1, "save_minutes": 1e-9}
    processes = []

    def run(*before, **data):
        (tmp_path / "r.yaml").write_text(yaml.safe_dump(config | {"data": config["data"] | data}))
        command = [*before, sys.executable, "-c", PROGRAM, "train", "--config", "r.yaml", "--run_dir", "run"]
        process = subprocess.Popen(
            command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        processes.append(process)
        for line in process.stdout:
            if line.startswith("epoch"):
                break
        return process

    yield run
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def ended(process):
    _, err = process.communicate(timeout=60)
    return process.returncode, [line for line in err.splitlines() if line]


def test_a_warning_for_all_processes_of_a_run_ends_it_with_its_state(start, tmp_path):
    """SLURM sends it to every process of a job step, and so to the workers of data loaders."""
    process = start(workers=1)
    os.killpg(process.pid, signal.SIGUSR1)
    code, err = ended(process)
    assert code == 128 + signal.SIGUSR1
    assert len(err) == 1 and "epochs are kept in run; continue with: spikeformers train" in err[0]
    assert (tmp_path / "run" / "last.ckpt").exists() and not (tmp_path / "run" / ".lock").exists()


def test_the_end_of_the_terminal_and_a_second_run_in_the_folder(start, tmp_path):
    process = start()
    second = subprocess.run(
        [sys.executable, "-c", PROGRAM, "train", "--resume", "--run_dir", "run"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (
        second.returncode == 2
        and f"run is in use by process {process.pid} on" in second.stderr
        and second.stderr.count("\n") == 1
    )
    assert process.poll() is None
    process.send_signal(signal.SIGHUP)
    code, err = ended(process)
    assert code == 128 + signal.SIGHUP and len(err) == 1 and "are kept in run" in err[0]


@pytest.fixture
def kept_handlers():
    before = {each: signal.getsignal(each) for each in SIGNALS}
    yield
    for each, handler in before.items():
        signal.signal(each, handler)


@pytest.mark.parametrize("signum", SIGNALS, ids=lambda each: each.name)
def test_the_first_signal_interrupts_and_is_remembered(kept_handlers, signum):
    before = signal.getsignal(signum)
    with pytest.raises(KeyboardInterrupt) as caught, listening():
        signal.raise_signal(signum)
    assert caught.value.signal == signum and signal.getsignal(signum) is before
    with pytest.raises(KeyboardInterrupt) as caught, listening():
        raise KeyboardInterrupt
    assert caught.value.signal == signal.SIGINT


def test_nohup_stays_in_force(kept_handlers):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with listening():
        signal.raise_signal(signal.SIGHUP)


def test_a_second_signal_ends_the_process_and_forked_ones_ignore_them(kept_handlers):
    child = os.fork()
    if not child:
        signals = Signals()
        signals.listen()
        grandchild = os.fork()
        if not grandchild:
            signal.raise_signal(signal.SIGTERM)  # without effect here
            os._exit(7)
        _, status = os.waitpid(grandchild, 0)
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt:
            if os.waitstatus_to_exitcode(status) == 7 and signals.received == signal.SIGTERM:
                signal.raise_signal(signal.SIGTERM)
                time.sleep(10)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGTERM
