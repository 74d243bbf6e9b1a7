"""What a network does and what that costs: the spike-driven audit, firing rates, operations, energy and the report page."""

from .audit import Audit, Finding, audit
from .energy import Account, Constants
from .profiler import Profile, compare, estimate, profile

__all__ = ["Account", "Audit", "Constants", "Finding", "Profile", "audit", "compare", "estimate", "profile"]
