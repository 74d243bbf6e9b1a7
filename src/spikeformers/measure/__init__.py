"""What any runner counts, merged over batches and processes; one definition per word (docs/glossary.md)."""

from .accuracy import Accuracy, answers_so_far
from .constants import Constants
from .emissions import emissions
from .inputs import Batch, Inputs, batches_of, device_of
from .networks import SelfCounting, Stepped, named
from .recorder import Recorder, following, record
from .tally import COLUMNS, Tally
from .traces import Traces, traces

__all__ = [
    "COLUMNS",
    "Accuracy",
    "Batch",
    "Constants",
    "Inputs",
    "Recorder",
    "SelfCounting",
    "Stepped",
    "Tally",
    "Traces",
    "answers_so_far",
    "batches_of",
    "device_of",
    "emissions",
    "following",
    "named",
    "record",
    "traces",
]
