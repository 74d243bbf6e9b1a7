"""How what is missing is installed here: from an index, or from the clone that this installation runs from."""

import functools
import importlib.metadata
import json
from pathlib import Path
from urllib.parse import unquote, urlparse


def command_for(extra: str) -> str:
    """The command that adds an extra of the package to this installation, such as "pip install 'spikeformers[train]'".

    Args:
        extra: train, dense, events or convert.
    """
    clone = _clone()
    if clone is None:
        return f"pip install 'spikeformers[{extra}]'"
    if (clone / ".venv").is_dir():
        return f"uv sync --extra {extra} (in {clone})"
    return f"pip install -e '{clone}[{extra}]'"


@functools.cache
def _clone() -> Path | None:
    """The folder of the sources that are installed in place; None where the package was copied."""
    try:
        written = importlib.metadata.distribution("spikeformers").read_text("direct_url.json")
        found = json.loads(written or "{}")
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return None
    if not found.get("dir_info", {}).get("editable"):
        return None
    folder = Path(unquote(urlparse(found.get("url", "")).path))
    return folder if folder.is_dir() else None
