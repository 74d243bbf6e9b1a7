"""Writing files whole or not at all."""

import csv
import io
import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file under a temporary name in the same folder, then renames it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(temporary, 0o666 & ~umask())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def write_json(path: Path, content: dict) -> None:
    """Writes indented JSON as `write_atomically` does."""
    write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())


def as_csv(rows: Iterable[dict]) -> str:
    """Rows of the same keys as comma-separated values, with the keys as header."""
    rows, out = list(rows), io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def umask() -> int:
    """The process's mask of permissions, which private temporary files have to be given."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
