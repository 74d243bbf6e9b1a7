"""`python -m spikeformers` is the command `spikeformers`."""

import sys

from .cli import main

sys.exit(main())
