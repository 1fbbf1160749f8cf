"""How long the report of 500 runs takes to open: python -m benchmarks.report_page.

In headless Chromium, by the clock, from the address to the first frame after all is drawn, beside a page of one run;
medians of seven, taking turns. The runs are made up (tests/made_runs.py), with 16 layers and 20 epochs each.
"""

import shutil
import sys
import time
from importlib import import_module
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from playwright.sync_api import Browser, sync_playwright
from rich.table import Table

from benchmarks.arguments import command_line, print_table
from requant.webpage import write_page

TIMES = 7
DRAWN = "new Promise(done => requestAnimationFrame(() => setTimeout(done)))"


def main() -> None:
    """Write the pages, open them, show."""
    command_line(__doc__).parse_args()
    sys.path.append(str(Path(__file__).parents[1] / "tests"))
    write_runs = import_module("made_runs").write_runs
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("needs Chromium: apt-get install chromium")
    pages: dict[int, Path] = {}
    seconds: dict[int, list[float]] = {}
    with TemporaryDirectory() as folder, sync_playwright() as playwright:
        for runs in (1, 500):
            pages[runs] = Path(folder) / str(runs) / "page.html"
            write_runs(pages[runs].parent, runs)
            write_page(pages[runs].parent, pages[runs])
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for _ in range(TIMES):
            for runs, page in pages.items():
                seconds.setdefault(runs, []).append(_opened(browser, page))
        browser.close()
        table = Table("runs", "page, kB", "seconds, median", "least", "most")
        for runs, taken in seconds.items():
            size = pages[runs].stat().st_size
            table.add_row(str(runs), f"{size / 1000:,.0f}", *(f"{f(taken):.2f}" for f in (median, min, max)))
        print_table(table)


def _opened(browser: Browser, page: Path) -> float:
    tab = browser.new_page()
    begin = time.perf_counter()
    tab.goto(page.as_uri())
    tab.evaluate(DRAWN)
    taken = time.perf_counter() - begin
    tab.close()
    return taken


if __name__ == "__main__":
    main()
