"""Arguments that fit what `tests.db.filling` made."""

from __future__ import annotations

from typing import Final

JOB: Final = "'00000005-0000-7000-8000-000000000003'"  # job 5 of tenant 3
JOBS: Final = "'{00000005-0000-7000-8000-000000000003}'"
TOKEN: Final = "'00000000-0000-4000-8000-000000000000'"
CONTACTS: Final = "'{c1,c10,c500}'"
NULLS: Final = ", …"  # nothing but NULL after the first argument
NONE: Final = "'{null,null,null}'"
TRIED: Final = "'c1','|','~',NULL,'{1}','{1}',NULL,NULL,NULL,NULL,NULL"

Hot = dict[str, tuple[str, set[str]]]
