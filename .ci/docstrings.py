"""What docstrings of public functions, methods and classes owe a reader: prints what is missing, and exits with 1 if something is.

A docstring at all; "Args:" from three arguments on; "Raises:" where the body raises ValueError by itself; a shape such as [B, C] where an argument or a result
is a tensor. A class documents the arguments of its constructor. Overriding methods and the doors of the command line are left out.
"""

import ast
import re
import sys
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "spikeformers"
SHAPE = re.compile(r"\[[^\]]*\]")
TENSOR = re.compile(r"\bTensor\b")
INHERITED = {"forward", "extra_repr", "train", "state_dict", "load_state_dict"}


def public(name: str) -> bool:
    return not name.startswith("_")


def arguments(function: ast.FunctionDef) -> list[ast.arg]:
    found = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    return [arg for arg in found if arg.arg not in ("self", "cls")]


def raises(function: ast.AST) -> bool:
    """Whether the body itself raises ValueError, functions inside it aside."""
    for child in ast.iter_child_nodes(function):
        if isinstance(child, (ast.FunctionDef, ast.Lambda, ast.ClassDef)):
            continue
        if (
            isinstance(child, ast.Raise)
            and isinstance(child.exc, ast.Call)
            and getattr(child.exc.func, "id", "") == "ValueError"
        ):
            return True
        if raises(child):
            return True
    return False


def annotated(function: ast.FunctionDef) -> str:
    notes = [arg.annotation for arg in arguments(function)] + [function.returns]
    return " ".join(ast.unparse(note) for note in notes if note is not None)


def owed(function: ast.FunctionDef, text: str | None, where: str, constructor: bool = False) -> list[str]:
    if text is None:
        return [] if constructor else [f"{where}: no docstring"]
    missing = []
    if len(arguments(function)) >= 3 and "Args:" not in text:
        missing.append(f"{where}: no Args, and {len(arguments(function))} arguments")
    if raises(function) and "Raises:" not in text:
        missing.append(f"{where}: no Raises, and it raises ValueError")
    if TENSOR.search(annotated(function)) and not SHAPE.search(text):
        missing.append(f"{where}: no shape, and tensors go in or out")
    return missing


def check(path: Path) -> list[str]:
    """What is missing in one file."""
    missing = []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        where = f"{path.relative_to(SOURCE.parents[1])}:{node.lineno} {getattr(node, 'name', '')}"
        if isinstance(node, ast.FunctionDef) and public(node.name):
            missing += owed(node, ast.get_docstring(node), where)
        if isinstance(node, ast.ClassDef) and public(node.name):
            text = ast.get_docstring(node)
            if text is None:
                missing.append(f"{where}: no docstring")
            for inner in node.body:
                if not isinstance(inner, ast.FunctionDef):
                    continue
                if inner.name == "__init__":
                    missing += owed(inner, text, where, constructor=True)
                elif (
                    public(inner.name) and inner.name not in INHERITED and not inner.decorator_list and text is not None
                ):
                    inside = f"{where}.{inner.name}"
                    own = ast.get_docstring(inner)
                    if own is not None or not node.bases:
                        missing += owed(inner, own, inside)
    return missing


def main() -> int:
    files = [path for path in sorted(SOURCE.rglob("*.py")) if path.parent.name != "cli" or path.name.startswith("_")]
    missing = [line for path in files for line in check(path)]
    print("\n".join(missing) or f"docstrings of {len(files)} files: nothing missing")
    return int(bool(missing))


if __name__ == "__main__":
    sys.exit(main())
