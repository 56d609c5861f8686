"""How a table is written: for a terminal, as Markdown, LaTeX or HTML, and its records as CSV or JSON."""

import csv
import io
import json
import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table as RichTable
from rich.text import Text

from balancemm_cli.config.recipe import flatten

Records = list[dict[str, object]]

NAMES = frozenset({"Dataset", "Model", "Method", "Variant", "Recipe", "Settings", "Owner", "Note", "Source"})
"""Columns that tell rows apart; of a narrow terminal they are folded, where numbers are not."""
LEAST_NAME = 8  # columns of a terminal


@dataclass(frozen=True)
class Table:
    """A table for people: texts only, bold ones between double asterisks."""

    title: str
    header: list[str]
    cells: list[list[str]]
    notes: list[str] = field(default_factory=list)
    dataset: str | None = None  # whose runs are its rows, of a table of runs
    datasets: tuple[str, ...] = ()  # which columns are those of a data set
    says: list[str] = field(default_factory=list)  # what it shows, in sentences


def plain(cell: str) -> tuple[str, bool]:
    """A cell's text, and whether it is bold."""
    bold = cell.startswith("**") and cell.endswith("**") and len(cell) > 4
    return (cell[2:-2], True) if bold else (cell, False)


def to_rich(table: Table, width: int) -> RichTable:
    """The table for a terminal of `width` columns, its notes as the caption.

    Numbers are never broken: columns from the right that have no room are left out, and named in a note.
    """
    table = _fitting(table, width)
    rich = RichTable(
        title=Text("\n".join([table.title, *table.says])),
        caption=Text("\n".join(table.notes)),
        title_justify="left",
        caption_justify="left",
        header_style="bold",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for name in table.header:
        rich.add_column(Text(name), no_wrap=name not in NAMES, overflow="fold")
    for cells in table.cells:
        rich.add_row(*(Text(text, "bold" if bold else "") for text, bold in map(plain, cells)))
    return rich


def _fitting(table: Table, width: int) -> Table:
    """The table without the columns from the right for which a terminal of `width` columns has no room."""
    widths = [max(map(len, column)) for column in zip(table.header, *table.cells, strict=True)]
    shown = list(range(len(widths)))
    while len(shown) > 1 and _needed([(table.header[at], widths[at]) for at in shown]) > width:
        numbers = [at for at in shown if table.header[at] not in NAMES]
        if len(numbers) < 2:
            break
        shown.remove(numbers[-1])
    left_out = [name for at, name in enumerate(table.header) if at not in shown]
    if not left_out:
        return table
    note = f"No room for {', '.join(left_out)}: widen the terminal, choose with --columns, or use --format markdown."
    return replace(
        table,
        header=[table.header[at] for at in shown],
        cells=[[cells[at] for at in shown] for cells in table.cells],
        notes=[note, *table.notes],
    )


def _needed(columns: Sequence[tuple[str, int]]) -> int:
    """How wide a table of columns (name, width) is at least; names may be folded."""
    least = (min(width, LEAST_NAME) if name in NAMES else width for name, width in columns)
    return sum(least) + 2 * len(columns) + 1


def to_markdown(table: Table) -> str:
    """The table as Markdown: heading, pipes padded so that the raw text reads as a table, notes as a list."""
    lines = [table.header, *table.cells]
    escaped = [[cell.replace("|", "\\|").replace("\n", " ") for cell in line] for line in lines]
    widths = [max(len(cell) for cell in column) for column in zip(*escaped, strict=True)]
    texts = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in escaped
    ]
    texts.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    notes = "\n".join(f"- {note}" for note in table.notes)
    says = "".join(f"{sentence}\n" for sentence in table.says) + "\n" * bool(table.says)
    return f"## {table.title}\n\n{says}" + "\n".join(texts) + f"\n\n{notes}\n"


# ---- LaTeX --------------------------------------------------------------------------------------------------

_LATEX = {character: f"\\{character}" for character in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
    "−": r"$-$",
    "—": "---",
    "†": r"$^\dagger$",
    "ρ": r"$\rho$",
    "Δ": r"$\Delta$",
    "λ": r"$\lambda$",
    "α": r"$\alpha$",
    "γ": r"$\gamma$",
    "×": r"$\times$",
    "…": r"\ldots{}",
    "–": "--",
    "✓": r"$\surd$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "≠": r"$\neq$",
    "·": r"$\cdot$",
}
_NEEDS = r"% In the preamble: \usepackage{booktabs,graphicx}, and with pdfLaTeX \usepackage[T1]{fontenc}"


def to_latex(tables: Sequence[Table]) -> str:
    """Every table (booktabs) with its notes and a label, to be read into a paper as it is by \\input."""
    return "\n".join([_NEEDS, *map(_latex_table, tables)])


def _latex_table(table: Table) -> str:
    def line(cells: Sequence[str]) -> str:
        return " & ".join(_latex_cell(cell) for cell in cells) + r" \\"

    notes = r" \\ ".join(_latex(note) for note in (*table.says, *table.notes))
    return "\n".join(
        [
            r"\begin{table}[htbp]",
            r"\centering",
            rf"\caption{{{_latex(table.title)}}}",
            rf"\label{{tab:{_slug(table.title)}}}",
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            rf"\begin{{tabular}}{{{'l' * len(table.header)}}}",
            r"\toprule",
            line(table.header),
            r"\midrule",
            *map(line, table.cells),
            r"\bottomrule",
            r"\end{tabular}}",
            rf"\par\smallskip\parbox{{\linewidth}}{{\footnotesize {notes}}}",
            r"\end{table}",
            "",
        ]
    )


def _slug(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def _latex_cell(cell: str) -> str:
    text, bold = plain(cell)
    return rf"\textbf{{{_latex(text)}}}" if bold else _latex(text)


def _latex(text: str) -> str:
    """Text with LaTeX's own characters escaped; a bracket at the start of a line would be an option of \\\\."""
    escaped = "".join(_LATEX.get(character, character) for character in text.replace("\n", " "))
    return escaped.replace("[", "{[}").replace("]", "{]}")


# ---- HTML ---------------------------------------------------------------------------------------------------

_WRAPPED = frozenset({"Settings", "Verdict", "Literature", "Note", "Source"})
"""Columns of words, which may be broken where a page is narrow."""
_INCH = 96  # pixels of a page for one of a figure: its text of 9 points is then as high as 12 pixels
_LEAST_SCALE = 0.85  # by which figures are made smaller at most, so that their text can be read

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.45 system-ui, sans-serif; margin: 1rem auto; max-width: 120rem; padding: 0 1rem; }
.says { max-width: 60rem; }
.beside { display: flex; flex-wrap: wrap; gap: 1rem; align-items: flex-start; }
.table { overflow-x: auto; max-width: 100%; }
.filters { display: flex; flex-wrap: wrap; gap: .5rem 1.5rem; margin: 1rem 0; }
.filters summary { cursor: pointer; padding: .35rem 0; font-weight: 600; }
.filters label { display: block; padding: .2rem 0; }
[hidden] { display: none; }
table { border-collapse: collapse; font-size: 15px; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .5rem; text-align: left; white-space: nowrap; border-bottom: 1px solid #8884; }
.words { white-space: normal; min-width: 7rem; }
@media (max-width: 40rem) { th, td { padding: .3rem .45rem; } td:first-child { white-space: normal; } }
th { cursor: pointer; border-bottom: 2px solid; vertical-align: bottom; }
th[aria-sort=ascending]::after { content: " \\2191"; }
th[aria-sort=descending]::after { content: " \\2193"; }
ul { max-width: 80rem; }
li { overflow-wrap: anywhere; }
figure { margin: 0; max-width: 100%; overflow-x: auto; }
img { display: block; height: auto; background: white; }
"""

_FILTER = """
const tables = [...document.querySelectorAll("table")], off = {};
const heads = table => [...table.tHead.rows[0].cells].map(head => head.textContent);
const names = tables.flatMap(table => table.dataset.of ? [table.dataset.of] : []);
const column = (table, name) => heads(table).indexOf(name);
const values = name => [...new Set(tables.flatMap(table => {
  const at = column(table, name);
  return at < 0 ? [] : [...table.tBodies[0].rows].map(row => row.cells[at].textContent);
}))];
const datasets = [...new Set([...names, ...values("Data set"), ...document.body.dataset.sets.split("\\n")])]
  .filter(name => name);
const kinds = {
  "Data sets": datasets, "Models": values("Model"), "Methods": values("Method"),
  "Columns": [...new Set(tables.flatMap(heads))]
    .filter(name => !["Model", "Method", "Data set", ...datasets].includes(name)),
};
const shown = (kind, name) => !(off[kind] && off[kind].has(name));
const apply = () => tables.forEach(table => {
  const of = heads(table), part = table.closest("section");
  part.hidden = !!table.dataset.of && !shown("Data sets", table.dataset.of);
  const visible = of.map(name => shown("Columns", name) && shown("Data sets", name));
  for (const row of table.rows) [...row.cells].forEach((cell, at) => cell.hidden = !visible[at]);
  for (const row of table.tBodies[0].rows) row.hidden = ["Data sets", "Models", "Methods"].some(kind => {
    const at = of.indexOf(kind.slice(0, -1));
    return at >= 0 && !shown(kind, row.cells[at].textContent);
  });
});
for (const [kind, all] of Object.entries(kinds)) {
  if (all.length < 2) continue;
  const box = document.createElement("details"), title = document.createElement("summary");
  title.textContent = kind;
  box.append(title);
  off[kind] = new Set();
  for (const name of all) {
    const label = document.createElement("label"), tick = document.createElement("input");
    tick.type = "checkbox";
    tick.checked = true;
    tick.addEventListener("change", () => { off[kind][tick.checked ? "delete" : "add"](name); apply(); });
    label.append(tick, " " + name);
    box.append(label);
  }
  document.querySelector(".filters").append(box);
}
"""

_SORT = """
for (const head of document.querySelectorAll("th")) head.addEventListener("click", () => {
  const rows = head.closest("table").tBodies[0], up = head.ariaSort !== "ascending";
  const value = row => {
    const text = row.cells[head.cellIndex].innerText, number = parseFloat(text.replace("\u2212", "-"));
    return isNaN(number) ? text : number;
  };
  const order = (a, b) => typeof a !== typeof b
    ? (typeof a === "number" ? -1 : 1) : (up ? 1 : -1) * ((a > b) - (a < b));
  for (const other of head.parentNode.cells) other.ariaSort = null;
  head.ariaSort = up ? "ascending" : "descending";
  [...rows.rows].sort((a, b) => order(value(a), value(b))).forEach(row => rows.append(row));
});
"""


def to_html(tables: Sequence[Table], figures: Sequence[Path] = ()) -> str:
    """One page that needs no other file: the tables, sortable by a click on a head, with boxes that choose data sets,
    models, methods and columns; and the PNG figures, each beside the table of its data set."""
    sets = "\n".join(dict.fromkeys(name for table in tables for name in table.datasets))
    homes = {png: _home(png, tables) for png in figures}
    sections = [_html_table(one, [png for png in figures if homes[png] is one]) for one in tables]
    body = "\n".join([*sections, *(_html_figure(png) for png in figures if homes[png] is None)])
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Report</title>\n<style>{_STYLE}</style>\n</head>\n"
        f'<body data-sets="{escape(sets)}">\n<h1>Report</h1>\n<nav class="filters"></nav>\n{body}\n'
        f"<script>{_FILTER}{_SORT}</script>\n</body>\n</html>\n"
    )


def _home(png: Path, tables: Sequence[Table]) -> Table | None:
    """The first table of the data set whose name a figure's begins with; of two such names it is the longer one."""
    found = [table for table in tables if table.dataset and png.stem.startswith(f"{table.dataset}-")]
    return max(found, key=lambda table: len(table.dataset or ""), default=None)


def _html_table(table: Table, figures: Sequence[Path] = ()) -> str:
    words = [name in _WRAPPED for name in table.header]
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in table.header)
    lines = "\n".join(
        "<tr>"
        + "".join(_html_cell(cell, of_words) for cell, of_words in zip(cells, words, strict=True))
        + "</tr>"
        for cells in table.cells
    )
    notes = "\n".join(f"<li>{escape(note)}</li>" for note in table.notes)
    says = f'<p class="says">{escape(" ".join(table.says))}</p>\n' if table.says else ""
    of = f' data-of="{escape(table.dataset)}"' if table.dataset else ""
    drawn = "".join(f"\n{_html_figure(png)}" for png in figures)
    return (
        f'<section>\n<h2>{escape(table.title)}</h2>\n{says}<div class="beside"><div class="table"><table{of}>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{lines}\n</tbody>\n</table></div>{drawn}</div>\n"
        f"<ul>\n{notes}\n</ul>\n</section>"
    )


def _html_cell(cell: str, words: bool) -> str:
    text, bold = plain(cell)
    kind = ' class="words"' if words else ""
    return f"<td{kind}><b>{escape(text)}</b></td>" if bold else f"<td{kind}>{escape(text)}</td>"


def _html_figure(png: Path) -> str:
    """A figure that is at most so much smaller than its text can be read; what has no room is reached by scrolling."""
    content = png.read_bytes()
    width, dots = _size(content)
    full = width / dots * _INCH
    least = full * _LEAST_SCALE
    style = f"width: clamp({least:.0f}px, 100%, {full:.0f}px)"
    data = b64encode(content).decode()
    picture = f'<img alt="{escape(png.stem)}" style="{style}" src="data:image/png;base64,{data}">'
    return f'<figure style="flex: 1 1 {least:.0f}px">{picture}</figure>'


def _size(png: bytes) -> tuple[int, float]:
    """The width of a PNG in pixels, and how many of them make an inch."""
    width = int.from_bytes(png[16:20], "big")
    at = png.index(b"pHYs") + 4
    return width, int.from_bytes(png[at : at + 4], "big") * 0.0254


# ---- records ------------------------------------------------------------------------------------------------


def to_json(records: Records) -> str:
    """A JSON array, one object per record."""
    return json.dumps(records, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def to_csv(records: Records) -> str:
    """CSV, one line per record; nested keys joined by "_", lists by a space, a gap empty. No text without a record."""
    if not records:
        return ""
    flat = [flatten(one, "_") for one in records]
    # In the order of the record's own keys, also where the rows have other modalities.
    columns = list(
        dict.fromkeys(name for key in records[0] for one in records for name in flatten({key: one[key]}, "_"))
    )
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _csv_cell(value) for key, value in one.items()} for one in flat)
    return text.getvalue()


def _csv_cell(value: object) -> object:
    return " ".join(str(part) for part in value) if isinstance(value, list | tuple) else value
