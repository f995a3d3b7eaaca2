"""The key that this service encrypts credentials with."""

from app.errors import SettingsError
from app.http.errors import SecretKeyMissing
from app.kit.encryption import Vault
from app.settings import Settings


def open_vault(settings: Settings) -> Vault:
    """Raises `SecretKeyMissing`: this service has no key, or one that is none, so it can keep no secret."""
    try:
        return Vault(settings.secret_key)
    except SettingsError as error:
        raise SecretKeyMissing("" if not settings.secret_key else error.detail) from error
