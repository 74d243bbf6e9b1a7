"""The C code under AddressSanitizer and UBSan: the other tests of this folder, on instrumented builds in a process of their own."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from spikeformers.kernels import _library

KERNELS = Path(_library.__file__).parent
SETUP = Path(__file__).parents[2] / "setup.py"
BUILDS = _library._BUILDS.get(torch.backends.cpu.get_cpu_capability(), ("baseline",))
SANITIZE = ["-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]

RUN = """
import ctypes, sys, types
from pathlib import Path

import torch

# the kernels without the front door, whose imports take longer than the tests
kernels, folder, *arguments = sys.argv[1:]
package = types.ModuleType("spikeformers")
package.__path__ = [str(Path(kernels).parent)]
sys.modules["spikeformers"] = package
from spikeformers.kernels import _library

def load_library(beside):
    return ctypes.CDLL(str(Path(folder, Path(beside).parent.name + ".so"))), "sanitized"

_library.load_library = load_library

# as little room behind weights and scratch memory as is promised
from spikeformers.kernels.spike_conv import weight
weight.aligned = lambda data: torch.cat([data, torch.zeros(64, dtype=torch.uint8)])

import pytest
sys.exit(pytest.main(arguments))
"""


def runtime() -> str | None:
    """The compiler's library of AddressSanitizer, which must be loaded before all others; None where there is none."""
    if sys.platform != "linux" or shutil.which("cc") is None:
        return None
    return library("libasan.so") or None


def library(name: str) -> str:
    """One of the compiler's libraries; nothing where there is none."""
    found = subprocess.run(["cc", f"-print-file-name={name}"], capture_output=True, text=True).stdout.strip()
    return found if os.path.isabs(found) else ""


pytestmark = pytest.mark.skipif(runtime() is None, reason="no C compiler with AddressSanitizer")


def compile_sanitized(sources, flags, folder):
    """A library in the folder for each of the sources {name: path}. OpenMP is compiled in but not linked, as in setup.py."""
    options = [*flags, "-fopenmp", "-fPIC", *SANITIZE]
    compilers = [
        subprocess.Popen(["cc", *options, "-c", path, "-o", folder / f"{name}.o"]) for name, path in sources.items()
    ]
    assert not any([compiler.wait() for compiler in compilers])
    for name in sources:
        subprocess.run(["cc", "-shared", *SANITIZE, folder / f"{name}.o", "-o", folder / f"{name}.so"], check=True)


def constants_of_setup():
    """What setup.py assigns, by name."""
    statements = [statement for statement in ast.parse(SETUP.read_text()).body if isinstance(statement, ast.Assign)]
    return {statement.targets[0].id: ast.literal_eval(statement.value) for statement in statements}


def run_sanitized(*command):
    """Runs Python with these arguments; whatever a sanitizer finds ends it."""
    # Python frees little before it exits
    environment = {
        **os.environ,
        "LD_PRELOAD": f"{runtime()} {library('libstdc++.so.6')}",  # the latter for exceptions, which torch raises
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }
    return subprocess.run([sys.executable, *command], cwd=SETUP.parent, env=environment, capture_output=True, text=True)


# what is about the builds themselves, and torch's compiler, aside
EVERYTHING = "not builds and not missing and not is_built and not status and not opcheck and not compiles"


@pytest.mark.parametrize(
    ("operations", "build", "optimisation", "tests"),
    [
        pytest.param(
            ("spike_conv", "spike_attention"), BUILDS[0], "-O0", "random_shapes", id="quick"
        ),  # -O1 takes twice as long to compile
        *(
            pytest.param(
                ("spike_conv", "spike_attention", "lif"), build, "-O1", EVERYTHING, marks=pytest.mark.slow, id=build
            )
            for build in BUILDS
        ),
    ],
)
def test_sanitizers_find_nothing(operations, build, optimisation, tests, tmp_path):
    constants = constants_of_setup()
    sources = {operation: KERNELS / operation / "native.c" for operation in operations}
    compile_sanitized(sources, [*constants["EXACT"], *constants["X86_LEVELS"].get(build, []), optimisation], tmp_path)
    places = {"spike_conv": "spike_conv", "spike_attention": "test_spike_attention.py", "lif": "test_lif.py"}
    files = [Path(__file__).with_name(places[operation]) for operation in operations]
    run_tests(tmp_path, files, "-k", tests)


@pytest.mark.slow
@pytest.mark.parametrize("build", BUILDS)
def test_sanitizers_find_nothing_in_broken_calls(build, tmp_path):
    """Some ten thousand calls of each kernel with arguments that do not fit, of which each is answered or refused."""
    sources = {operation: KERNELS / operation / "native.c" for operation in ("spike_conv", "spike_attention", "lif")}
    constants = constants_of_setup()
    compile_sanitized(sources, [*constants["EXACT"], *constants["X86_LEVELS"].get(build, []), "-O0"], tmp_path)
    run_tests(tmp_path, [Path(__file__).with_name("test_broken_calls.py")], "-m", "slow or not slow")


def run_tests(folder, files, *options):
    result = run_sanitized("-c", RUN, KERNELS, folder, *files, *options, "-n0", "-qs", "-p", "no:cacheprovider")
    assert result.returncode == 0, f"{result.stdout[-6000:]}\n{result.stderr[-6000:]}"


@pytest.mark.parametrize(
    ("number", "finding"), [(0, None), (500, "heap-buffer-overflow"), (-(2**31), "signed integer overflow")], ids=str
)
def test_sanitizers_would_find_something(number, finding, tmp_path):
    source = tmp_path / "read.c"
    source.write_text("int read_before(const int *a, int i) { return a[i < 0 ? i - 1 : i]; }")
    compile_sanitized({"read": source}, [], tmp_path)
    read = f"import ctypes; ctypes.CDLL({str(tmp_path / 'read.so')!r}).read_before((ctypes.c_int * 500)(), {number})"
    result = run_sanitized("-c", read)
    assert (result.returncode == 0) == (finding is None) and (finding or "") in result.stderr
