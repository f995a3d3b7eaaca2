"""`python -m tests.console.screenshots FOLDER`: pictures of the console's views, of a sample installation."""

from __future__ import annotations

import argparse
import asyncio
import re
import tempfile
from pathlib import Path

from app.embedded import Engines
from app.migrations.runner import migrate
from tests.acceptance.harness import installation
from tests.conftest import quick
from tests.console.browser import browsing, console_of
from tests.console.sample import furnish
from tests.console.walk import MODES, address, settle, views


async def take(folder: Path, modes: list[str], only: str) -> None:
    """One picture a view and mode, of the whole page: NAME-MODE.png."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="tranche-pictures-") as place:
        base = Path(place)
        base.chmod(0o711)  # PostgreSQL runs as another user where this is root
        async with Engines(base / "engines") as engines:
            await migrate(engines.urls.database_url)
            (base / "logs").mkdir()
            async with installation(quick(*engines.app_urls), base / "logs", engines.urls.database_url) as tranche:
                tranche.quiet = True
                sample = await furnish(tranche)
                async with browsing() as browser:
                    for mode in modes:
                        async with console_of(browser, tranche, **MODES[mode]) as console:
                            await console.sign_in()
                            for name, pattern in views().items():
                                if not re.search(only, name):
                                    continue
                                await settle(console, address(pattern, sample))
                                picture = folder / f"{name}-{mode}.png"
                                await console.page.screenshot(path=picture, full_page=True)
                                print(f"{picture}  {picture.stat().st_size:,} B")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.console.screenshots", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--mode", action="append", choices=MODES, help="default: all of them")
    parser.add_argument("--only", default="", help="views whose name has this (a regular expression)")
    arguments = parser.parse_args()
    asyncio.run(take(arguments.folder, arguments.mode or list(MODES), arguments.only))


if __name__ == "__main__":
    main()
