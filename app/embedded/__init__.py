"""PostgreSQL and Valkey from wheels, supervised: for development, the demo and the tests."""

from app.embedded.engines import Engines, Urls
from app.embedded.errors import EngineError, EngineMissingError, FolderInUseError
from app.embedded.process import Child
from app.embedded.state import Run, read_run

__all__ = ["Child", "EngineError", "EngineMissingError", "Engines", "FolderInUseError", "Run", "Urls", "read_run"]
