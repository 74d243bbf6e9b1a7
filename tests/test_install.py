import json
from types import SimpleNamespace

import pytest

from spikeformers import _install


@pytest.fixture
def installed(monkeypatch, tmp_path):
    """Makes the package one that was installed so."""

    def as_(content):
        found = SimpleNamespace(read_text=lambda name: content)
        monkeypatch.setattr(_install.importlib.metadata, "distribution", lambda name: found)
        _install._clone.cache_clear()

    yield as_
    _install._clone.cache_clear()


def test_from_an_index(installed):
    installed(None)
    assert _install.command_for("train") == "pip install 'spikeformers[train]'"
    installed("no JSON")
    assert _install.command_for("train") == "pip install 'spikeformers[train]'"


def test_from_a_clone(installed, tmp_path):
    url = {"url": tmp_path.as_uri(), "dir_info": {"editable": True}}
    installed(json.dumps(url))
    assert _install.command_for("dense") == f"pip install -e '{tmp_path}[dense]'"
    (tmp_path / ".venv").mkdir()
    assert _install.command_for("dense") == f"uv sync --extra dense (in {tmp_path})"
    installed(json.dumps({"url": tmp_path.as_uri(), "dir_info": {}}))
    assert _install.command_for("dense") == "pip install 'spikeformers[dense]'"
