"""The rights of the role that serves and works, apart from the owner who migrates."""

from pathlib import Path
from typing import Final

OWNER: Final = "tranche_owner"
APP: Final = "tranche_app"


def privileges(owner: str = OWNER, app: str = APP) -> str:
    """The statements of `privileges.sql`, which `docs/security.md` shows, for two roles that exist."""
    text = Path(__file__).with_name("privileges.sql").read_text(encoding="utf-8")
    return text.replace(OWNER, owner).replace(APP, app)
