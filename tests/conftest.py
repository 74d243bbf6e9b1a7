"""Runs before torch loads: OpenMP threads that wait by spinning slow the tests down tenfold on a busy machine."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
