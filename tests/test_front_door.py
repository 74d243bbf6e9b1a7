"""What `import spikeformers` and the first words of its command cost: modules are counted, benchmarks/start.py measures seconds."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "timm", "numpy", "lightning", "jsonargparse", "PIL")


def fresh(code: str, *args: str) -> str:
    """What a new Python process prints."""
    done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


RECIPE = str(Path(__file__).parents[1] / "src/spikeformers/recipes/digits.yaml")
MISTAKES = [
    *(
        ["traim"],
        ["help", "traim"],
        ["train", "--unknown"],
        ["train", "--config", RECIPE, "--epochs", "3"],
        ["train", "--config", "none.yaml"],
    ),
    *(
        ["train", "--data.name", "digit"],
        ["eval"],
        ["eval", "none.ckpt"],
        ["profile"],
        ["profile", "none.ckpt"],
        ["profile", "x", "--sampels", "1"],
    ),
    *(
        ["compare", "a.ckpt", "--early_exit=true"],
        ["convert"],
        ["convert", "x", "--unknown"],
        ["predict", "x", "y", "--top", "0"],
    ),
    *(
        ["predict", "none.ckpt", "x.png"],
        ["list", "--unknown"],
        ["import", "none.pth", "out"],
        ["shard"],
        ["doctor", "x"],
        ["completion", "csh"],
    ),
]


@pytest.mark.parametrize(
    "argv", [["--help"], ["--version"], ["train", "--help"], ["help", "eval"], [], *MISTAKES], ids=" ".join
)
def test_first_words_load_nothing_heavy(argv):
    code = (
        "import contextlib, io, sys\nfrom spikeformers.cli import main\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()): main(sys.argv[1:])\n"
        f"print([name for name in {HEAVY} if name in sys.modules], len(sys.modules) < 350)"
    )
    assert fresh(code, *argv) == "[] True"


def test_names_are_loaded_when_first_used_and_models_registered_when_timm_comes_second():
    code = (
        "import sys, spikeformers\nassert 'torch' not in sys.modules\nassert {'create_model', 'transforms', 'merge'} <= set(dir(spikeformers))\n"
        "import timm\nassert timm.is_model('spiking_vgg9') and 'spikeformers.transforms' not in sys.modules\n"
        "from spikeformers import *\nprint(merge is spikeformers.transforms.merge, callable(create_model), __version__ == spikeformers.__version__)"
    )
    assert fresh(code) == "True True True"


def test_models_are_registered_when_timm_comes_first_and_tasks_are_known_without_being_imported():
    code = (
        "import sys, timm, spikeformers\nassert timm.is_model('spiking_vgg9') and 'spikeformers.tasks' not in sys.modules\n"
        "print(spikeformers.models.create_model('semantic_fpn', backbone='spiking_vgg9', num_classes=3).num_classes)"
    )
    assert fresh(code) == "3"


def test_no_two_public_classes_share_a_name():
    found: dict[str, list[str]] = {}
    source = Path(__file__).parents[1] / "src" / "spikeformers"
    for path in source.rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found.setdefault(node.name, []).append(str(path.relative_to(source)))
    assert not {name: places for name, places in found.items() if len(places) > 1}
