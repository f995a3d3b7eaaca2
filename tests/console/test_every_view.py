"""Every view in every mode: nothing that axe finds, nothing to scroll sideways for, and few bytes."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from tests.acceptance.harness import Installation
from tests.console.browser import Console, browsing, console_of, needs_browser
from tests.console.sample import furnish
from tests.console.walk import MODES, address, settle, views

pytestmark = needs_browser
MOST = 100_000
"""Bytes of a view that is opened first, with all that it loads and asks for."""


async def test_nobody_is_kept_out_of_any_view(tranche: Installation) -> None:
    sample = await furnish(tranche)
    found: dict[str, list[str]] = {}
    async with browsing() as browser:
        for mode, options in MODES.items():
            async with console_of(browser, tranche, **options) as console:
                await console.sign_in()
                for name, pattern in views().items():
                    await settle(console, address(pattern, sample))
                    found[f"{name} {mode}"] = await console.violations() + await _overflow(console)
    for place, faults in found.items():
        print(f"{place:40} {len(faults)} violations")
    assert len(found) == len(views()) * len(MODES)
    assert {place: faults for place, faults in found.items() if faults} == {}


async def _overflow(console: Console) -> list[str]:
    """WCAG 1.4.10: only tables scroll sideways, each by itself."""
    wide = await console.page.evaluate("document.scrollingElement.scrollWidth - innerWidth")
    return [f"the page is {wide} px too wide"] if wide > 0 else []


async def test_every_view_is_small_over_the_wire(tranche: Installation) -> None:
    sample = await furnish(tranche)
    sizes = {}
    async with browsing() as browser, console_of(browser, tranche) as console:
        await console.sign_in()
        for name, pattern in views().items():
            sizes[name] = await _weigh(console, address(pattern, sample))
    print(f"{'view':28} {'requests':>8} {'files':>9} {'API':>9} bytes over the wire, nothing cached")
    for name, (requests, of_files, of_api) in sizes.items():
        print(f"{name:28} {requests:8} {of_files:9,} {of_api:9,}")
    assert {name: size for name, size in sizes.items() if size[1] + size[2] > MOST} == {}


async def _weigh(console: Console, path: str) -> tuple[int, int, int]:
    """Requests, bytes of the console's files, bytes of the API's answers."""
    page = await console.page.context.new_page()
    wire = await page.context.new_cdp_session(page)
    urls: dict[str, str] = {}
    sizes: dict[str, int] = defaultdict(int)

    def note_request(event: dict[str, Any]) -> None:
        urls[event["requestId"]] = event["request"]["url"]

    def note_end(event: dict[str, Any]) -> None:
        sizes[event["requestId"]] += int(event["encodedDataLength"])

    wire.on("Network.requestWillBeSent", note_request)
    wire.on("Network.loadingFinished", note_end)
    await wire.send("Network.enable")
    await wire.send("Network.setCacheDisabled", {"cacheDisabled": True})
    await settle(Console(page, console.tranche), path)
    await page.close()
    of_files = sum(size for request, size in sizes.items() if "/console" in urls.get(request, ""))
    return len(sizes), of_files, sum(sizes.values()) - of_files
