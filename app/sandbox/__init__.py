"""Stand-in CRMs that speak the vendors' wire protocols, misbehave on demand and book every effect."""

from app.sandbox.server import KINDS, open_sandbox, run
from app.sandbox.vendor import ANY

__all__ = ["ANY", "KINDS", "open_sandbox", "run"]
