"""MLflow's pages in a real browser, as a person opens them: from the link that the command prints
to what died, where, why and what cures it, without a click."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from zeronorm import views

pytestmark = pytest.mark.slow  # a sweep, a server and a browser

STUDY = ["study=quick_ablation", "trainable=true", "init=pretrained", "numerics=kernels,xla,tf1"]
STUDY += ["similarity=clamp_product,add_to_product", "training=smoke"]
STUDY += ["examples=40", "model.filters=16"]
ZERONORM = str(Path(sys.executable).with_name("zeronorm"))
FIRST_VISIT = {"width": 1440, "height": 900}
CELLS = """rows => rows.map(row => [...document.querySelectorAll(
    `.ag-row[row-index="${row.getAttribute('row-index')}"] .ag-cell`)]
    .map(cell => cell.getAttribute('col-id') + ' ' + cell.innerText.trim()))"""
NARROW_CURE = 125  # pixels of a cell that holds tf.sqrt(x + 1e-07)
# so that the panel beside the runs stays closed, as on a second visit
ASSISTANT_SEEN = "localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')"
# a line of each chart: its run and how many points it has
LINES = """plots => plots.map(plot => plot.data.map(line => [line.name, line.x.length]))"""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """(home, what the sweep printed): six runs, of which four die."""
    home = tmp_path_factory.mktemp("browsed")
    done = subprocess.run(
        [ZERONORM, "train", *STUDY],
        env=os.environ | {"ZERONORM_HOME": str(home), "COLUMNS": "200"},
        cwd=home,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return home, done.stdout


@contextmanager
def served(home: Path) -> Iterator[dict[str, str]]:
    """The links that `zeronorm ui` prints once its pages answer, to quick_ablation's:
    {experiment: link}."""
    server = subprocess.Popen(
        [ZERONORM, "ui", "--port", str(free_port())],
        env=os.environ | {"ZERONORM_HOME": str(home)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        found = {}
        for line in server.stdout:
            if link := re.search(r"http://\S+#/experiments/\S+", line):
                found[line.split()[0].strip(":")] = link[0]
            if "quick_ablation" in found:
                break
        yield found
    finally:
        server.send_signal(signal.SIGINT)
        assert server.wait(60) == 0


@contextmanager
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium") or shutil.which("google-chrome")
    assert program, "These tests need Chromium: apt-get install chromium."
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        opened = playwright.chromium.launch(executable_path=program, args=arguments)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def links(swept):
    with served(swept[0]) as found:
        yield found


@pytest.fixture(scope="module")
def page():
    with browser() as opened:
        yield opened.new_page(viewport=FIRST_VISIT)


def test_the_printed_link_shows_what_died_where_why_and_what_cures_it(page, links):
    page.goto(links["quick_ablation"])
    page.wait_for_selector(".ag-row", timeout=120_000)
    page.wait_for_timeout(1_000)  # the columns are laid out after the rows
    rows = page.eval_on_selector_all(".ag-center-cols-container .ag-row", CELLS)
    assert len(rows) == 6
    said = [" ".join(row) for row in rows]
    assert [bool(re.search("NaN@0", row)) for row in said] == [True] * 4 + [False] * 2
    for row in said[:4]:
        assert "SqrtGrad" in row and re.search(r"similarity\.py:\d+", row)
        assert re.search(r"tags.`cure` tf\.sqrt\(x \+ 1e-05\)", row), row
        assert re.search(r"tags.`guilty.title` \w+", row)
    assert {re.search("xla|tf1", row)[0] for row in said[:4]} == {"xla", "tf1"}
    name = page.locator(".ag-row").get_by_text("NaN@0").first
    assert name.is_visible()


def test_the_cells_that_say_what_died_are_not_cut(page, links):
    """On a first visit, beside the panel that MLflow opens."""
    page.goto(links["quick_ablation"])
    page.wait_for_selector(".ag-row", timeout=120_000)
    page.wait_for_timeout(1_000)
    for column in ("guilty.operation", "guilty.line", "guilty.title", "cure"):
        cell = page.locator(f".ag-row[row-index='0'] [col-id='tags.`{column}`']").first
        assert cell.evaluate("cell => cell.scrollWidth <= cell.clientWidth"), column
    box, panel = cell.bounding_box(), page.get_by_text("MLflow Assistant").first.bounding_box()
    assert box["x"] + NARROW_CURE <= panel["x"]


def test_the_menu_s_second_view_lists_the_dead_first(page, links):
    page.goto(links["quick_ablation"])
    page.wait_for_selector(".ag-row", timeout=120_000)
    page.get_by_role("button", name=views.NAMES[views.DIED][:9]).click()
    assert page.get_by_role("menuitem").filter(has_text="drawn").count() == 0
    page.get_by_text(views.NAMES[views.CURVES]).last.click()
    page.wait_for_url(re.compile(f"viewStateShareKey={views.CURVES}(&|$)"))
    page.wait_for_timeout(3_000)
    names = [name for name in page.locator(".ag-row [col-id^='attributes']").all_inner_texts()]
    dead = ["NaN@0" in name for name in names if name.strip()]
    assert dead == [True] * 4 + [False] * 2


def test_a_chart_of_norms_shows_the_dead_and_the_living(page, links):
    base, _, rest = links["quick_ablation"].partition("#")
    experiment = rest.split("/")[2]
    page.goto(views.page(base, experiment, views.CURVES))
    page.wait_for_selector(".js-plotly-plot", timeout=120_000)
    page.wait_for_timeout(3_000)  # the values come after the frames
    charts = page.eval_on_selector_all(".js-plotly-plot", LINES)
    norms = next(dict(map(tuple, chart)) for chart in charts if chart)
    dead = [points for name, points in norms.items() if "NaN@0" in name]
    alive = [points for name, points in norms.items() if "NaN@0" not in name]
    assert len(dead) == 4 and len(alive) == 2
    assert min(dead) >= 1 and min(alive) > max(dead)


def test_the_autopsy_opens_at_its_head(page, links, swept):
    base, _, rest = links["quick_ablation"].partition("#")
    run = re.search("zeronorm autopsy ([0-9a-f]{32})", swept[1])[1]
    page.goto(views.artifact(base, rest.split("/")[2], run, "autopsy.md"))
    headline = page.get_by_text(re.compile("Died in step 0: SqrtGrad at similarity"))
    headline.first.wait_for(timeout=120_000)
    box = headline.first.bounding_box()
    assert 0 < box["y"] < FIRST_VISIT["height"]
    cure = page.get_by_text("Cure:").first.bounding_box()
    assert 0 < cure["y"] < FIRST_VISIT["height"]


def test_the_sweep_prints_the_link_and_the_next_command(swept):
    assert re.search(
        r"#/experiments/\d+/runs\?workflowType=machine_learning&viewStateShareKey=what-died",
        swept[1],
    )
    assert "zeronorm autopsy " in swept[1] and "4 of 6 conditions end in NaN" in swept[1]


def picture(home: Path, path: Path) -> None:
    """The README's picture of the view, of a store that has run quick_ablation."""
    with served(home) as links, browser() as opened:
        shown = opened.new_page(viewport={"width": 1220, "height": 690})
        shown.add_init_script(ASSISTANT_SEEN)
        shown.goto(links["quick_ablation"])
        shown.wait_for_selector(".ag-row", timeout=120_000)
        # room for the rows: without the menu, and without the banner of a shared view
        shown.get_by_role("button", name=re.compile("collapse|sidebar", re.I)).first.click()
        shown.get_by_role("button", name="Exit shared view").locator(
            "xpath=following::button[1]"
        ).click()
        shown.mouse.move(0, 0)
        shown.wait_for_timeout(3_000)
        shown.screenshot(path=path)


if __name__ == "__main__":  # python tests/test_ui.py HOME
    picture(Path(sys.argv[1]).resolve(), Path(__file__).parents[1] / "docs" / "mlflow.png")
