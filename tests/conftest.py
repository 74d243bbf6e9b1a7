"""Runs before torch loads: OpenMP threads of the tests sleep while they wait, so that a busy machine does not slow them down."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
