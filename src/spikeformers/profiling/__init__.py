"""What a network does and what that costs: the spike-driven audit, firing rates, operations, energy and the report page."""

from ..measure import Constants
from .account import Account
from .audit import Audit, Finding, audit
from .comparison import compare
from .early_exit import EarlyExit, early_exit_curve
from .estimates import estimate
from .profiler import profile
from .result import Profile
from .saved import read_profile

__all__ = [
    "Account",
    "Audit",
    "Constants",
    "EarlyExit",
    "Finding",
    "Profile",
    "audit",
    "compare",
    "early_exit_curve",
    "estimate",
    "profile",
    "read_profile",
]
