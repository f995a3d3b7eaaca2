"""In ASCII an address is judged as the library email-validator judges it, which takes fifty times as long."""

from __future__ import annotations

import email_validator
from hypothesis import example, given
from hypothesis import strategies as st

from app.resources.email import find_fault, is_usual

_LOCAL = st.text("aZ09.!#$%&'*+/=?^_`{|}~-@\" (),:;<>[]\\", max_size=66)
_DOMAIN = st.from_regex(r"[aZ9x_.n-]{0,66}\.[a-z]{1,3}", fullmatch=True)


def _is_taken(address: str) -> bool:
    try:
        # Special names may stand here; no address is looked up.
        email_validator.validate_email(address, strict=True, check_deliverability=False, test_environment=True)
    except email_validator.EmailNotValidError:
        return False
    return True


@given(_LOCAL, _DOMAIN)
@example("a..b", "example.com")
@example("a" * 64, "b" * 63 + ".com")
@example("a" * 65, "example.com")
@example("a", "b" * 64 + ".com")
@example("a", "ab--c.com")
def test_it_is_judged_as_the_library_does(local: str, domain: str) -> None:
    address = f"{local}@{domain}"
    if address != address.strip():  # that has words of its own
        return
    assert (find_fault(address) is None) == _is_taken(address)
    assert not is_usual(address) or _is_taken(address)
