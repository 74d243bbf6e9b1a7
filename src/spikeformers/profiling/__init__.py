"""What a network does and what that costs: the spike-driven audit, firing rates, operations, energy and the report page."""

from .audit import Audit, Finding, audit
from .early_exit import EarlyExit, early_exit_curve
from .energy import Account, Constants
from .profiler import Profile, compare, estimate, profile
from .saved import read_profile

__all__ = ["Account", "Audit", "Constants", "EarlyExit", "Finding", "Profile", "audit", "compare", "early_exit_curve", "estimate", "profile", "read_profile"]
