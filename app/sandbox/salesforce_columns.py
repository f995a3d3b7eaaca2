"""The columns of Salesforce's Contact, as the stand-in knows them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from app.sandbox.vendor import Visit

STANDARD: Final = frozenset(
    """
    AccountId AssistantName Birthdate Department Description DoNotCall Email Fax FirstName
    HasOptedOutOfEmail HomePhone Id LastName LeadSource MailingCity MailingCountry MailingPostalCode
    MailingState MailingStreet MobilePhone OtherCity OtherCountry OtherPhone OtherPostalCode OtherState
    OtherStreet OwnerId Phone Salutation Title
    """.split()
)
"""Columns that every Contact has; there are some more."""
KEY: Final = "Tranche_Id__c"
"""The external id field, by the default of a destination."""
DESCRIBED: Final = ("Company__c", KEY)
"""Of all the custom fields that there may be, where every name is declared."""


def missing_column(visit: Visit, names: Iterable[str]) -> str | None:
    """A column that Contact does not have. What an organisation makes itself ends in `__c`, whatever was declared."""
    names = list(names)
    strange = [name for name in names if name not in STANDARD and not name.endswith("__c")]
    return next(iter([*visit.missing_fields(names), *strange]), None)
