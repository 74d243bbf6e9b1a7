"""Benchmarks and examples, which no test runs, import names that there are."""

import ast
import importlib
import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(ROOT.glob("benchmarks/*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_imports_exist(path):
    missing = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "spikeformers":
            module = importlib.import_module(node.module)
            names = [alias.name for alias in node.names if not hasattr(module, alias.name)]
            missing += [
                f"{node.module}.{name}" for name in names if not importlib.util.find_spec(f"{node.module}.{name}")
            ]
    assert not missing


def test_there_are_benchmarks():
    assert len(FILES) > 5
