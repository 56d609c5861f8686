"""Tables as LaTeX that compiles and as a page that a browser shows whole."""

import html
import re
import shutil
import subprocess
from itertools import product

import pytest
from run_folders import write_demo, write_run

from balancemm_cli.results.collection import collect
from balancemm_cli.results.contents import Contents
from balancemm_cli.results.figures import draw_all
from balancemm_cli.results.figures.drawing import DPI
from balancemm_cli.results.formats import Table, to_html, to_latex, to_markdown

AWKWARD = Table(
    "50 % of a_b & c: {x} \\\\ ~ ^ # $ < > ± − — † ρ Δ λ",
    ["Model", "ρ a_1", "Δ"],
    [["[x]", "**71.0 ± 1.0 (3)**", "−5.9"], ["*", "**", "+1.0 †"]],
    ["opm.q_base=0.4, 100 % of α", "[second]", "✓ ↑ ↓ ? ≠ 50.5–67.5 −3 × 2"],
)
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """Tables of every kind, and figures, of eighteen runs and a few with the paper's settings."""
    folder = tmp_path_factory.mktemp("demo")
    groups = collect([write_demo(folder / "runs")], "last").groups
    figures, _ = draw_all(groups, "last", folder / "figures")
    for seed, method in product(range(3), ("baseline", "opm")):
        write_run(
            folder / "paper", method, seed, dataset="crema-d", recipe="paper", accuracy=0.6 + seed / 100
        )
    paper = collect([folder / "paper"], "last").groups
    kinds = (
        Contents(groups, "last"),
        Contents(groups, "last", side_by_side=True),
        Contents(paper, "last", table="12"),
    )
    return [table for one in kinds for table in one.tables], figures


def test_latex_by_hand():
    text = to_latex([AWKWARD])
    assert r"\caption{50 \% of a\_b \& c: \{x\} \textbackslash{}\textbackslash{} \textasciitilde{}" in text
    assert r"{[}x{]} & \textbf{71.0 $\pm$ 1.0 (3)} & $-$5.9 \\" in text
    assert text.count(r"\begin{tabular}{lll}") == 1 and text.isascii()


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex (texlive-latex-recommended)")
def test_latex_compiles_as_it_is(demo, tmp_path):
    (tmp_path / "tables.tex").write_text(to_latex([*demo[0], AWKWARD]))
    (tmp_path / "report.tex").write_text(
        "\\documentclass{article}\n\\usepackage[T1]{fontenc}\n\\usepackage{booktabs,graphicx}\n\\begin{document}\n"
        "\\input{tables}\nTable~\\ref{tab:synthetic-variant-paper-recipe-default}.\n\\end{document}\n"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "report.tex"]
    for _ in range(2):  # the second time with its references
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=300
        )
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "report.pdf").stat().st_size > 10_000
    assert not re.search("Overfull|undefined|Missing", done.stdout)


def test_markdown_keeps_what_it_means():
    lines = to_markdown(AWKWARD).splitlines()
    assert lines[4].split("|")[2].strip() == "**71.0 ± 1.0 (3)**"


def test_html_escapes_and_holds_everything(demo):
    page = to_html([AWKWARD, *demo[0]], demo[1])
    assert html.escape(AWKWARD.title) in page and "<td><b>71.0 ± 1.0 (3)</b></td>" in page
    assert page.count("<img ") == len(demo[1]) > 0
    assert not re.search('(src|href)="(?!data:)', page)  # no other file is needed


def shown(page, tmp_path, width, script):
    """What `script` evaluates to in a frame of that width; Chromium draws the page without a screen.

    A frame, since headless Chromium's own windows are at least 500 wide.
    """
    measure = f'addEventListener("load", () => {{ parent.document.title = String({script}) }})'
    page = html.escape(page.replace("</body>", f"<script>{measure}</script></body>"))
    path, picture = tmp_path / "frame.html", tmp_path / "picture.png"
    path.write_text(
        f'<title></title><iframe width="{width}" height="900" style="border: 0" srcdoc="{page}"></iframe>'
    )
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1400,950"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", f"--screenshot={picture}", path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert picture.stat().st_size > 10_000
    return re.search("<title>(.*?)</title>", done.stdout)[1]


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_shows_the_page_without_overflow(demo, tmp_path, width):
    """At desk and at phone width; every figure is drawn, so large that its text of 9 points has 10 pixels and more."""
    measure = (
        "[document.documentElement.scrollWidth <= innerWidth, innerWidth, document.images.length,"
        "[...document.images].every(one => one.naturalWidth > 100"
        f" && one.parentNode.offsetWidth <= innerWidth && one.width / one.naturalWidth * {DPI} * 9 / 72 >= 10)]"
    )
    fits, inner, images, drawn = shown(to_html(*demo), tmp_path, width, measure).split(",")
    assert (fits, int(inner), int(images), drawn) == ("true", width, len(demo[1]), "true")


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_desk_shows_all_that_decides_without_scrolling(tmp_path):
    """Rows with long settings, verdicts and literature; the first columns end within 1,280 pixels."""
    for seed, method, rate in product(range(3), ("baseline", "opm", "ogm"), (0.001, 0.002)):
        write_run(
            tmp_path / "runs",
            method,
            seed,
            dataset="crema-d",
            recipe="paper",
            overrides=(f"optimizer.lr={rate}", f"optimizer.weight_decay={rate / 10}"),
            accuracy=0.6 + seed / 100,
        )
        write_run(
            tmp_path / "runs", method, seed, dataset="crema-d", recipe="paper", accuracy=0.6 + seed / 90
        )
    contents = Contents(collect([tmp_path / "runs"], "last").groups, "last")
    (table,) = contents.tables
    decides = ["Accuracy", "Gain", "Published", "Δ", "Verdict"]
    assert {"Settings", *decides} <= {*table.header}
    measure = (
        f"(() => {{ const decides = {decides}; return [...document.querySelectorAll('th')]"
        ".filter(one => decides.includes(one.textContent))"
        ".map(one => one.getBoundingClientRect().right <= innerWidth).join() })()"
    )
    assert shown(to_html([table]), tmp_path, 1280, measure) == ",".join(["true"] * len(decides))


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_figure_stands_with_the_table_of_its_data_set(demo, tmp_path):
    """Beside it where there is room, and below it on a phone; that of no table is at the end."""
    tables = [Table(name, ["Method"], [["opm"]], dataset=name) for name in ("other", "synthetic")]
    place = (
        "(() => { const one = document.images[0], table = one.closest('section').querySelector('table');"
        "const [a, b] = [one, table].map(it => it.getBoundingClientRect());"
        "return [table.dataset.of, b.right <= a.left && a.top < b.bottom, b.bottom <= a.top].join() })()"
    )
    assert shown(to_html(tables, demo[1]), tmp_path, 1280, place) == "synthetic,true,false"
    assert shown(to_html(tables, demo[1]), tmp_path, 390, place) == "synthetic,false,true"
    assert "</section>\n<figure " in to_html(tables[:1], demo[1])


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_click_on_a_head_sorts(tmp_path):
    table = Table(
        "t", ["Method", "Accuracy"], [["a", "9.5 (3)"], ["b", "—"], ["c", "71.0 ± 1.0"], ["d", "−3.0"]]
    )
    script = (
        "(() => { const cells = () => [...document.querySelectorAll('td:first-child')];"
        "const order = () => cells().map(one => one.innerText).join('');"
        "const head = document.querySelectorAll('th')[1]; head.click(); const up = order(); head.click();"
        "return up + order() })()"
    )
    assert shown(to_html([table]), tmp_path, 800, script) == "dacb" + "cadb"  # a gap is last both ways


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_boxes_choose_data_sets_methods_and_columns(tmp_path):
    """A data set is a column, a table's own, or named in the rows of a table."""
    tables = [
        Table("wide", ["Method", "x", "y"], [["a", "1", "2"], ["b", "3", "4"]], datasets=("x", "y")),
        Table("long", ["Data set", "Method", "Cost"], [["x", "a", "5"], ["y", "a", "6"], ["y", "b", "7"]]),
        Table("of x", ["Method", "Gain"], [["a", "8"]], dataset="x"),
        Table("of y", ["Method", "Gain"], [["a", "9"], ["b", "0"]], dataset="y"),
    ]
    script = (
        "(() => { const label = name => [...document.querySelectorAll('.filters label')]"
        ".find(one => one.textContent.trim() === name);"
        "const see = () => [...document.querySelectorAll('td')].filter(one => one.offsetParent && one.offsetWidth)"
        ".map(one => one.textContent).join('');"
        "const found = [see()];"
        "for (const name of ['x', 'b', 'Gain']) { label(name).click(); found.push(see()); label(name).click(); }"
        "found.push(see()); return found.join(' ') })()"
    )
    everything = "a12b34xa5ya6yb7a8a9b0"
    assert shown(to_html(tables), tmp_path, 800, script).split() == [
        everything,
        "a2b4ya6yb7a9b0",
        "a12xa5ya6a8a9",
        "a12b34xa5ya6yb7aab",
        everything,
    ]
