"""Runs before torch loads: threads, compiled modules, and how the tests are shared by processes."""

import os
import sys
from pathlib import Path

# OpenMP threads sleep while they wait, so that a busy machine does not slow the tests down
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# where modules are not to be kept in compiled form, every command that a test starts would compile torch's again, for 15 seconds
if os.environ.pop("PYTHONDONTWRITEBYTECODE", None):
    sys.dont_write_bytecode = False
    sys.pycache_prefix = str(Path(__file__).parents[1] / ".pytest_cache" / "bytecode")
    os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix


def pytest_xdist_auto_num_workers(config):
    """All tests are run by several processes of one thread each; tests named on the command line by this process alone, which
    starts sooner and shows what they print."""
    if config.getoption("file_or_dir"):
        return 0
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    return None
