"""Which revision of the schema this release needs, without Alembic, which takes a second and 30 MB to be imported."""

from functools import lru_cache
from pathlib import Path
from typing import Final

_VERSIONS: Final = Path(__file__).parent / "versions"


@lru_cache(maxsize=1)
def newest() -> str:
    """The revision whose number is the highest; their files are named by it."""
    return max(path.name.partition("_")[0] for path in _VERSIONS.glob("[0-9][0-9][0-9][0-9]_*.py"))
