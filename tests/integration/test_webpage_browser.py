"""The report as a person meets it, in headless Chromium."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from made_runs import write_runs

from requant.webpage import write_page

pytestmark = pytest.mark.slow

RUNS = 500
READY = "new Promise(done => requestAnimationFrame(() => setTimeout(done)))"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """The page's file, and what is in it."""
    folder = tmp_path_factory.mktemp("runs")
    made = write_runs(folder, RUNS)
    write_page(folder, folder / "page.html")
    return folder / "page.html", made


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def page(browser: Any, runs: tuple[Path, Any]) -> Iterator[Any]:
    """The page, open; no error may be said on its console, and nothing fetched."""
    opened, said, fetched = browser.new_page(), [], []
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("request", lambda request: fetched.append(request.url))
    opened.goto(runs[0].as_uri())
    opened.evaluate(READY)
    yield opened
    assert said == []
    assert [url for url in fetched if not url.startswith(("file:", "data:", "blob:"))] == []
    opened.close()


def rows(page: Any) -> list[str]:
    """The ids of the runs in the table, in order."""
    found: list[str] = page.evaluate("[...document.querySelectorAll('#runs tbody tr')].map(row => row.dataset.run)")
    return found


def points(page: Any, kind: str) -> list[tuple[float, float]]:
    """What is drawn in the first plot: the runs, or the corners of the Pareto fronts."""
    traces = page.evaluate("document.getElementById('front').data.map(({meta, x, y}) => ({meta, x, y}))")
    return [pair for trace in traces if trace["meta"] == kind for pair in zip(trace["x"], trace["y"], strict=True)]


def size_and_accuracy(run: dict[str, Any]) -> tuple[int, float]:
    return run["size"]["retrained_bytes"], 100 * run["accuracy"]["retrained"]["top1"]


def unbeaten(runs: list[dict[str, Any]]) -> list[tuple[int, float]]:
    """By definition: no other run is at least as small and as accurate, and better in one."""
    found = [size_and_accuracy(run) for run in runs]
    return [a for a in found if not any(b != a and b[0] <= a[0] and b[1] >= a[1] for b in found)]


def test_every_run_is_a_point_and_a_row(page: Any, runs: tuple[Path, list[dict[str, Any]]]) -> None:
    assert len(rows(page)) == RUNS
    assert page.locator("#front .points path").count() == RUNS
    assert sorted(points(page, "runs")) == sorted(map(size_and_accuracy, runs[1]))
    models = {run["config"]["model"]["name"] for run in runs[1]}
    groups = [[run for run in runs[1] if run["config"]["model"]["name"] == model] for model in models]
    front = [corner for group in groups for corner in unbeaten(group)]
    assert sorted(points(page, "front")) == sorted(front)


def test_filters_hold_for_table_plots_and_count(page: Any, runs: tuple[Path, list[dict[str, Any]]]) -> None:
    page.select_option("select[name=model]", "resnet50")
    page.select_option("select[name=centroids]", "32")
    page.select_option("select[name=clustering]", "kmeans")
    wanted = {
        f"made/{number:04}": run
        for number, run in enumerate(runs[1])
        if run["config"]["model"]["name"] == "resnet50"
        and run["config"]["centroids"] == 32
        and run["config"]["clustering"]["method"] == "kmeans"
    }
    assert wanted
    assert set(rows(page)) == set(wanted)
    assert len(points(page, "runs")) == len(wanted)
    assert sorted(points(page, "front")) == sorted(unbeaten(list(wanted.values())))
    assert page.inner_text("#count") == f"{len(wanted)} of {RUNS} runs"
    page.select_option("select[name=data]", "mnist5k")
    assert rows(page) == []
    page.click("button[type=reset]")
    assert len(rows(page)) == RUNS


def test_a_click_sorts_and_another_turns_round(page: Any, runs: tuple[Path, list[dict[str, Any]]]) -> None:
    accuracy = {f"made/{number:04}": run["accuracy"]["quantized"]["top1"] for number, run in enumerate(runs[1])}
    page.click("th[data-key=quantized_top1] button")
    assert [accuracy[run] for run in rows(page)] == sorted(accuracy.values())
    page.click("th[data-key=quantized_top1] button")
    assert [accuracy[run] for run in rows(page)] == sorted(accuracy.values(), reverse=True)
    assert page.get_attribute("th[data-key=quantized_top1]", "aria-sort") == "descending"


def test_a_point_leads_to_the_runs_settings_and_so_does_its_address(page: Any, runs: tuple[Path, Any]) -> None:
    page.select_option("select[name=seed]", "7")
    page.locator("#front .points path").hover(force=True)
    page.locator("#front .points path").click(force=True)
    assert page.inner_text("#name") == "made/0007"
    seed = page.locator("#settings div", has=page.get_by_text("seed", exact=True))
    assert seed.locator("dd").inner_text() == "7"
    assert page.evaluate("document.getElementById('layers').data[0].y") == [600 * layer for layer in range(1, 17)]
    page.goto("about:blank")
    page.goto(f"{runs[0].as_uri()}#made%2F0011")
    assert page.inner_text("#name") == "made/0011"


def test_nothing_is_wider_than_a_phone_and_dark_is_dark(browser: Any, runs: tuple[Path, Any]) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme="dark")
    page.goto(runs[0].as_uri())
    page.evaluate(READY)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(21, 23, 26)"
    assert page.evaluate("document.getElementById('front').layout.font.color") == "#e8e9eb"
    page.close()


def test_500_runs_are_drawn_in_two_seconds(browser: Any, runs: tuple[Path, Any], tmp_path: Path) -> None:
    """On a processor, beyond what a page of one run takes: how busy the machine is, is not the page's doing."""
    write_runs(tmp_path, 1)
    write_page(tmp_path, tmp_path / "page.html")
    assert seconds(browser, runs[0]) - seconds(browser, tmp_path / "page.html") < 2


def seconds(browser: Any, path: Path) -> float:
    """That the page's main thread spent on a processor until all was drawn."""
    page = browser.new_page()
    devtools = page.context.new_cdp_session(page)
    devtools.send("Performance.enable", {"timeDomain": "threadTicks"})
    page.goto(path.as_uri())
    page.evaluate(READY)
    metrics = {metric["name"]: metric["value"] for metric in devtools.send("Performance.getMetrics")["metrics"]}
    page.close()
    return float(metrics["TaskDuration"])
