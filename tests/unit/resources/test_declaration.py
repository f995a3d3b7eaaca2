"""A type of record is declared in one file, and everything follows from that."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from app.resources.types import contacts

_TRIAL = """
import sys, types
module = types.ModuleType("app.resources.types.contacts")
module.__file__ = {file!r}
sys.modules[module.__name__] = module
exec(compile({source!r}, module.__file__, "exec"), module.__dict__)

from app.api.openapi.document import make_document
from app.api.routes import OPERATIONS
from app.destinations.kinds import HubSpotOptions, SalesforceOptions
from app.files.csv_columns import understand
from app.files.csv_mapping import Wording
from app.resources.types.contacts import CONTACTS
from app.settings import Settings
from jobs.crm.mapping import FieldMap
from tests.types import NAMES, read_items, sent

def read(item):
    (row,) = read_items([item], max_item_bytes=10_000)
    return row

assert b'"job_title":"Engineer"' in read(b'{{"id":"1","email":"a@b.co","job_title":"Engineer"}}').document
assert read(b'{{"id":"1","email":"a@b.co","job_title":null}}').cleared == ["job_title"]
assert [error.pointer for error in read(b'{{"id":"1","email":"a@b.co","job_title":5}}').errors] == ["/job_title"]
assert 'did you mean "job_title"' in read(b'{{"id":"1","email":"a@b.co","jobtitle":"x"}}').errors[0].detail
columns = understand(NAMES, ["id", "email", "Position"], {{}}, Wording("map", ":", "{{}}:{{}}".format))
assert columns.read(["1", "a@b.co", "Engineer"])[0]["job_title"] == "Engineer"
names = FieldMap(HubSpotOptions(), CONTACTS, key="key", name_of=str.lower)
assert names.sources(sent("1", 1, email="a@b.co", job_title=None))["jobtitle"] is None
assert CONTACTS.named_at(SalesforceOptions.KIND)["job_title"] == "Title"
schemas = make_document(OPERATIONS, Settings())["components"]["schemas"]
assert all("job_title" in schemas[name]["properties"] for name in ("ContactItem", "Contact", "ListedContact"))
"""
_LINE = 'Field(name="job_title", headers="job title, position", at={"hubspot": "jobtitle", "salesforce": "Title"}),'


def test_a_field_is_one_line() -> None:
    """Items, faults, columns of files, both CRMs and the OpenAPI document know it."""
    file = str(contacts.__file__)
    source = Path(file).read_text().replace("    fields=(\n", f"    fields=(\n        {_LINE}\n", 1)
    assert _LINE in source
    done = subprocess.run(
        [sys.executable, "-c", _TRIAL.format(file=file, source=source)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
