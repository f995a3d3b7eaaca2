"""What can be wrong with a request as HTTP; the domain knows nothing of these."""

from collections.abc import Mapping

from app.errors import TrancheError


class ProtocolError(TrancheError):
    """The request is not one that this service can answer."""

    code = "MALFORMED_REQUEST"

    def __init__(self, detail: str = "", *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.headers = dict(headers or {})


class KeyMissing(ProtocolError):
    """This request needs an Idempotency-Key header, so that sending it twice does its work once."""

    code = "IDEMPOTENCY_KEY_MISSING"


class KeyInvalid(ProtocolError):
    """An Idempotency-Key is 1 to 255 printable ASCII characters, bare or in double quotes."""

    code = "IDEMPOTENCY_KEY_INVALID"


class CursorInvalid(ProtocolError):
    """This cursor is not one that this list gave out; start again without a cursor."""

    code = "INVALID_CURSOR"


class NotAcceptable(ProtocolError):
    """No representation of this resource is acceptable to the client; change its `Accept`."""

    code = "NOT_ACCEPTABLE"


class MethodNotAllowed(ProtocolError):
    """This resource does not know the method; the Allow header names those it knows."""

    code = "METHOD_NOT_ALLOWED"


class UnsupportedMediaType(ProtocolError):
    """The body has a media type that this resource does not take; the OpenAPI document lists those it does."""

    code = "UNSUPPORTED_MEDIA_TYPE"


class UnsupportedEncoding(ProtocolError):
    """The body has a Content-Encoding that this service does not know; gzip and zstd are known."""

    code = "UNSUPPORTED_ENCODING"


class SecretKeyMissing(ProtocolError):
    """Credentials of destinations are kept encrypted, and this service was started without TRANCHE_SECRET_KEY; an
    operator sets it to 32 random bytes in base64 (openssl rand -base64 32) and starts the service again."""

    code = "SECRET_KEY_MISSING"


class BodyStalled(ProtocolError):
    """The body did not arrive in time; nothing happened. Send the same request again."""

    code = "BODY_TIMEOUT"
