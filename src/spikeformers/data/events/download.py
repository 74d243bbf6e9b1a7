"""Fetching a data set from its publisher."""

import os
import shutil
import tempfile
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from torchvision.datasets import utils


@dataclass(frozen=True)
class Archive:
    """A file that the publisher offers.

    Args:
        folder: what is in it, and has its name below the data set's root.
        name: the file's name.
        url: where it is.
        md5: what it must be.
    """

    folder: str
    name: str
    url: str
    md5: str


def fetch(archives: Iterable[Archive], root: Path, data_set: str) -> None:
    """Fetches and unpacks those archives whose folders are missing. A folder appears when it is complete.

    Args:
        archives: what there is.
        root: where the folders belong; made if missing. An archive that lies there already is not fetched again.
        data_set: what people call it.
    Raises:
        ValueError: a download failed; what to fetch by hand.
    """
    for archive in archives:
        if (root / archive.folder).is_dir():
            continue
        partial = None
        try:
            root.mkdir(parents=True, exist_ok=True)
            partial = Path(tempfile.mkdtemp(dir=root, prefix=f".{archive.folder}."))  # other processes may fetch it too
            placed = utils.check_integrity(str(root / archive.name), archive.md5)
            if not placed:
                utils.download_url(archive.url, str(partial), archive.name, archive.md5)
            utils.extract_archive(str((root if placed else partial) / archive.name), str(partial / "unpacked"))
            os.rename(partial / "unpacked" / archive.folder, root / archive.folder)
        except (OSError, RuntimeError) as error:
            if (root / archive.folder).is_dir():  # another process was faster
                continue
            raise ValueError(
                f"cannot fetch {archive.name} of {data_set} ({error}); fetch {archive.url} ({_size(archive.url)}, md5 {archive.md5}) "
                f"by hand to {root / archive.name}, or set data.root to where it is unpacked"
            ) from None
        finally:
            if partial:
                shutil.rmtree(partial, ignore_errors=True)


def _size(url):
    """What the server says of a file's size, for people; the publishers state none."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=5) as answer:
            return f"{int(answer.headers['Content-Length']):,} bytes"
    except (OSError, TypeError, ValueError):
        return "of a size that the server does not tell now"
