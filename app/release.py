"""The release of Tranche that is installed."""

from importlib.metadata import PackageNotFoundError, version


def read_version() -> str:
    """Its version; "0" where Tranche is not installed as a package."""
    try:
        return version("tranche")
    except PackageNotFoundError:
        return "0"
