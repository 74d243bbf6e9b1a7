"""Files that are written whole or not at all, and folders with one owner."""

import errno
import json
import os
import subprocess
import sys

import pytest

from spikeformers import _files
from spikeformers._files import LOCK, owned, read_text, replacing, write_atomically
from spikeformers.models._reading import read_json
from spikeformers.profiling import read_profile

HOLD = """
import sys, time
from pathlib import Path
from spikeformers._files import owned
with owned(Path(sys.argv[1])):
    print("mine", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that owns the folder."""
    environment = {key: value for key, value in os.environ.items() if key != "SLURM_JOB_ID"}
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path / "run"], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout.readline() == "mine\n"
    yield process
    process.kill()
    process.wait()


def test_a_folder_has_one_owner_until_that_ends(holder, tmp_path):
    folder = tmp_path / "run"
    with (
        pytest.raises(
            ValueError, match=f"in use by process {holder.pid} on .*; wait until it has ended, or choose another folder"
        ),
        owned(folder),
    ):
        pass
    holder.kill()
    holder.wait()
    assert (folder / LOCK).exists()
    with owned(folder):
        assert json.loads((folder / LOCK).read_text())["process"] == os.getpid()
        with pytest.raises(ValueError, match="by this process"), owned(folder):
            pass
    assert list(folder.iterdir()) == []


def test_a_folder_that_nothing_was_put_into_is_not_left(tmp_path):
    with pytest.raises(RuntimeError), owned(tmp_path / "a" / "b"):
        raise RuntimeError
    assert not (tmp_path / "a").exists()
    with owned(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "file").touch()
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("owner", "job", "free"),
    [
        ({}, None, True),
        ({"host": "here", "process": 2**22 + 1}, None, True),  # no process has such a number
        ({"host": "here", "process": os.getpid() if os.getppid() == 0 else os.getppid()}, None, False),
        ({"host": "elsewhere", "process": 1}, None, False),
        ({"host": "elsewhere", "process": 1, "job": "7"}, "7", True),  # requeued after its computer crashed
        ({"host": "elsewhere", "process": 1, "job": "7"}, "8", False),
        ({"host": "here", "process": "x"}, None, False),
    ],
    ids=str,
)
def test_file_systems_without_locks(tmp_path, monkeypatch, owner, job, free):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(_files.fcntl, "lockf", no_locks)
    monkeypatch.setattr(_files.socket, "gethostname", lambda: "here")
    monkeypatch.setattr(_files, "PATIENCE", 0)
    monkeypatch.setenv("SLURM_JOB_ID", job) if job else monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    (tmp_path / LOCK).write_text(json.dumps(owner) if owner else "")
    if free:
        with owned(tmp_path):
            pass
    else:
        with pytest.raises(ValueError, match="is in use by"), owned(tmp_path):
            pass
        assert (tmp_path / LOCK).exists()


def test_a_requeued_job_waits_for_its_former_life(holder, tmp_path, monkeypatch):
    """On another computer, until the file server has noticed that the first is gone."""
    (tmp_path / "run" / LOCK).write_text(json.dumps({"host": "crashed", "process": 1, "job": "7"}))
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setattr(_files.time, "sleep", lambda seconds: (holder.kill(), holder.wait()))
    with owned(tmp_path / "run"):
        assert holder.poll() is not None


def test_leftovers_of_a_killed_process_are_removed(tmp_path):
    for name in (".last.ckpt.123.tmp", ".best.json.k3j2.tmp", "last.ckpt.tmp", "notes.tmp", ".hidden", "last.ckpt"):
        (tmp_path / name).touch()
    with owned(tmp_path):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {"notes.tmp", ".hidden", "last.ckpt"}


def test_what_fails_to_be_written_leaves_the_old_file_alone(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_text("old")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError), replacing(path) as temporary:
        temporary.write_text("half of the ne")
        full()
    with monkeypatch.context() as patch, pytest.raises(OSError):
        patch.setattr(os, "replace", full)
        write_atomically(path, b"new")
    assert [each.name for each in tmp_path.iterdir()] == ["file"] and path.read_text() == "old"
    with replacing(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("read", [read_text, read_json, read_profile], ids=lambda read: read.__name__)
def test_a_pipe_is_no_file_of_text(tmp_path, read):
    """Whoever opens one to read waits until somebody writes."""
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(ValueError, match="pipe"):
        read(tmp_path / "pipe.json")
