"""Writing files whole or not at all, and folders that belong to one process."""

import csv
import errno
import io
import json
import math
import os
import re
import socket
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

try:
    import fcntl
except ImportError:  # Windows: the lock is whom its file names
    fcntl = None

LARGEST_TEXT = 2**26  # bytes of a file of text that is read whole
LOCK = ".lock"
LEFTOVER = re.compile(r"\..+\.tmp|(last|best)\.ckpt\.tmp")  # the latter of earlier versions
PATIENCE = 120.0  # seconds that a requeued job waits until file servers have noticed that its computer is gone

_owned = set()  # by this process


@contextmanager
def regular_file(path: str | Path) -> Iterator[BinaryIO]:
    """Opens a file to read bytes. Pipes, devices and folders, which may never end or never begin, are refused.

    Raises:
        ValueError: it is no regular file.
        OSError: it is missing, or may not be read.
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(handle, "rb", closefd=True) if _is_regular(handle) else _refused(handle, path) as file:
        yield file


def _is_regular(handle):
    return stat.S_ISREG(os.fstat(handle).st_mode)


def _refused(handle, path):
    kind = "a folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "a pipe or a device"
    os.close(handle)
    raise ValueError(f"{path} is {kind}, not a file")


def read_text(path: str | Path) -> str:
    """A text file in UTF-8, such as JSON or YAML.

    Raises:
        ValueError: it is no regular file, no text, or larger than LARGEST_TEXT.
        OSError: it is missing, or may not be read.
    """
    with regular_file(path) as file:
        content = file.read(LARGEST_TEXT + 1)
    if len(content) > LARGEST_TEXT:
        raise ValueError(f"{path} is larger than {LARGEST_TEXT >> 20} MiB, which no such file needs")
    return content.decode("utf-8")


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file under a temporary name in the same folder, then renames it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(temporary, 0o666 & ~umask())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary name in the same folder for whoever writes files itself: the file becomes `path` when the block ends, and
    is removed where it fails, a full disk included; then what was there before stays as it was."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Inside, the folder belongs to this process alone. It is made if it is not there, and removed again if nothing was put in;
    temporary files of a process that was killed in it are removed.

    The lock is the system's, on FOLDER/.lock, which ends with the process, however that ends and on whatever computer. The file
    names the owner, for people, and for file systems without locks: there an owner counts as gone whose process no longer runs
    on this computer, or whose SLURM job is this one, requeued.

    Raises:
        ValueError: the folder belongs to another process; which.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    key = folder.resolve()
    if key in _owned:  # the system's locks do not hold within a process
        raise ValueError(f"{folder} is in use by this process; choose another folder")
    handle = _lock(folder)
    _owned.add(key)
    try:
        for path in folder.iterdir():
            if LEFTOVER.fullmatch(path.name):
                path.unlink()
        yield
    finally:
        _owned.discard(key)
        (folder / LOCK).unlink(missing_ok=True)
        os.close(handle)
        with suppress(OSError):  # not empty
            for path in made:
                path.rmdir()


def _lock(folder: Path) -> int:
    """The open file whose lock this process holds."""
    path, started = folder / LOCK, time.monotonic()
    me = {"host": socket.gethostname(), "process": os.getpid(), "job": os.environ.get("SLURM_JOB_ID")}
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        owner = _named(handle)
        try:
            locked = _taken(handle, owner, me)
        except BaseException:
            os.close(handle)
            raise
        if locked and _is(handle, path):
            os.ftruncate(handle, 0)
            os.pwrite(handle, json.dumps(me).encode(), 0)
            return handle
        os.close(handle)
        if locked:  # its owner has just removed the file
            continue
        if me["job"] is None or owner.get("job") != me["job"] or time.monotonic() - started > PATIENCE:
            by = (
                f"process {owner['process']} on {owner['host']}"
                if {"process", "host"} <= owner.keys()
                else "another process"
            )
            raise ValueError(
                f"{folder} is in use by {by}; wait until it has ended, or choose another folder (if that computer is gone, delete {path})"
            )
        time.sleep(1)


def _taken(handle, owner, me) -> bool:
    if fcntl:
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # of this process, not of those that it forks
            return True
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                return False
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
                raise
    return not owner or owner == me or _gone(owner, me)


def _gone(owner, me) -> bool:
    if owner.get("job") is not None and owner.get("job") == me["job"]:
        return owner.get("host") != me["host"] or not _runs(owner.get("process"))
    return owner.get("host") == me["host"] and not _runs(owner.get("process"))


def _runs(process) -> bool:
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except (OSError, TypeError, ValueError, OverflowError):  # it is another user's, or no number
        return True
    return True


def _named(handle) -> dict:
    try:
        content = json.loads(os.pread(handle, 10_000, 0))
    except ValueError:  # empty, or being written
        return {}
    return content if isinstance(content, dict) else {}


def _is(handle, path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def write_json(path: Path, content: dict) -> None:
    """Writes indented JSON as `write_atomically` does."""
    write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())


def without_nan(content: Any) -> Any:
    """Dicts and lists with None for numbers that are not finite, which JSON has no words for."""
    if isinstance(content, dict):
        return {key: without_nan(value) for key, value in content.items()}
    if isinstance(content, list):
        return [without_nan(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def as_csv(rows: Iterable[dict]) -> str:
    """Rows of the same keys as comma-separated values, with the keys as header; "" of no rows."""
    rows, out = list(rows), io.StringIO()
    if not rows:
        return ""
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def umask() -> int:
    """The process's mask of permissions, which private temporary files have to be given."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
