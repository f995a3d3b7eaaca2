"""`tranche demo`: the main job, end to end, on real engines, in front of your eyes."""

from app.cli.local.demo.command import demo

__all__ = ["demo"]
