"""Erasure: the personal data of records leaves every table; `jobs.sagas.erasure` does it."""
