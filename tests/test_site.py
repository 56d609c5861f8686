"""The documentation site is complete and current, builds without a warning, and fits a phone."""

import ast
import importlib.util
import inspect
import re
import shutil
import subprocess
import sys
from dataclasses import fields
from functools import cache
from pathlib import Path

import pytest

from balancemm_cli.cli import app
from balancemm_cli.cli.list import KINDS
from balancemm_cli.config.recipe import Recipe
from balancemm_cli.config.suites import load_suite
from balancemm_cli.methods.base import Method, Step
from balancemm_cli.resources import suites

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [page for page in sorted(DOCS.rglob("*.md")) if "_build" not in page.parts]
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
LINK = re.compile(r"\]\(([^)#: ]*)(?:#([^)]*))?\)")


@cache
def load_generate():
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def prose(page):
    """The text of a page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)


def anchors(page):
    """The names by which a code host and the site link to a page's headings."""
    heads = re.findall(r"^#+ (.+)$", prose(page), re.M)
    return {re.sub(r"[^\w -]", "", head.lower()).strip().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_what_the_program_says_is_current(page):
    text = page.read_text()
    assert load_generate().current(text) == text, "The page is stale: `make docs` brings it up to date."


@pytest.mark.parametrize("name", [command.name for command in app.registered_commands])
def test_a_command_s_page_has_every_option_of_its_help(name, bmm, monkeypatch):
    """Held against the printed help, which the pages are not made from."""
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("TERM", "dumb")
    status, said, _ = bmm(name, "--help")
    assert status == 0
    options = set(re.findall(r"^\W*(--[\w-]+) ", said, re.M)) - {"--help"}
    page = (DOCS / "commands" / f"{name}.md").read_text()
    assert set(re.findall(r"^\| `(--[\w-]+)", page, re.M)) == options


def test_every_command_method_model_and_data_set_is_in_a_table_of_contents():
    names = {
        kind: {Path(entry.where).stem for entry in KINDS[kind]()}
        for kind in ("datasets", "methods", "models")
    }
    names["commands"] = {command.name for command in app.registered_commands}
    for kind, expected in names.items():
        linked = set(
            re.findall(r"^- \[[^]]+\]\(([\w-]+)\.md\): \S", (DOCS / kind / "index.md").read_text(), re.M)
        )
        assert linked == expected == {page.stem for page in (DOCS / kind).glob("*.md")} - {"index"}, kind


def test_every_suite_is_on_the_page_about_reproducing():
    rows = re.findall(r"^\| `([\w-]+)` \|.*\| (\d+) \|$", (DOCS / "reproducing.md").read_text(), re.M)
    assert dict(rows) == {
        name: str(len(load_suite(name)[1].configs())) for name in suites() if name != "demo"
    }


def test_every_key_of_a_recipe_is_on_the_page_of_settings():
    page = (DOCS / "settings.md").read_text()
    for key, field in Recipe.model_fields.items():
        inner = getattr(field.annotation, "model_fields", None)
        for name in [f"{key}.{one}" for one in inner] if inner else [key]:
            assert f"`{name}`" in page, name


def public_functions(owner):
    """The names of its functions, each with its arguments as a call writes them."""
    given = {name: one for name, one in vars(owner).items() if inspect.isfunction(one) and name[0] != "_"}
    return {name: ", ".join(list(inspect.signature(one).parameters)[1:]) for name, one in given.items()}


def rows_of(section):
    """The cells of each row of a section's tables, without the heads."""
    rows = re.findall(r"^\| (`.*) \|$", section, re.M)
    return [row.split(" | ") for row in rows]


def test_every_hook_and_every_field_of_a_step_is_on_the_page_of_hooks():
    page = (DOCS / "hooks.md").read_text()
    hooks = public_functions(Method)
    assert dict(re.findall(r"^### `(\w+)\((.*)\)`$", page, re.M)) == hooks
    of_class, of_step = re.split(
        r"^## The fields of `Step`$", page.split("## What the class itself says")[1], flags=re.M
    )
    attributes = {name for name in vars(Method) if name[0] != "_"} - set(hooks)
    assert {row[0].strip("`") for row in rows_of(of_class)} == attributes
    known = {field.name for field in fields(Step)}
    functions = {name: given for name, given in public_functions(Step).items() if name not in known}
    known |= {f"{name}({given})" for name, given in functions.items()}
    assert {row[0].strip("`") for row in rows_of(of_step)} == known


def test_each_hook_and_field_has_an_example_that_is_python():
    page = (DOCS / "hooks.md").read_text()
    sections = page.split("\n### ")[1:]
    examples = [re.search(r"^```python\n(.*?)^```", section, re.M | re.S)[1] for section in sections]
    rows = rows_of(page)
    assert len(examples) == len(public_functions(Method)) and len(rows) > 15
    for example in [*examples, *(row[-1].strip("`") for row in rows)]:
        ast.parse(example)


def test_links_to_headings_lead_somewhere():
    for page in [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]:
        for link, anchor in LINK.findall(prose(page)):
            if anchor:
                assert anchor in anchors(page.parent / link if link else page), (
                    f"{page.name}: {link}#{anchor}"
                )


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site."""
    pytest.importorskip("sphinx", reason="needs Sphinx: pip install 'balancemm-cli[docs]'")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", "--keep-going"]
    command += ["-d", str(folder / "doctrees"), str(DOCS), str(folder / "html")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return folder / "html"


def test_the_site_builds_without_a_warning(site):
    for page in PAGES:
        built = (site / page.relative_to(DOCS)).with_suffix(".html").read_text()
        assert "<h1>" in built, page
        assert not re.search(r'<(script|link)[^>]+(src|href)="https?:', built)
    assert "<math" in (site / "methods" / "opm.html").read_text()
    start = (site / "index.html").read_text()
    assert all(f'href="methods/{name}.html"' in start for name in ("opm", "ogm", "agm"))  # at the side


@pytest.mark.long
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_no_page_is_wider_than_a_phone(site, tmp_path):
    """Wide tables and blocks scroll by themselves."""
    names = [str(page.relative_to(DOCS).with_suffix(".html")) for page in PAGES]
    frames = "".join(
        f'<iframe width="390" height="800" style="border: 0" src="{name}"></iframe>' for name in names
    )
    frame = "const it = one.contentDocument.querySelector('.content'); return it.scrollWidth - it.clientWidth"
    measure = f"[...document.querySelectorAll('iframe')].map(one => {{ {frame} }})"
    (site / "frames.html").write_text(
        f"<title></title>{frames}<script>addEventListener('load', () => {{ document.title = {measure} }})</script>"
    )
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", str(site / "frames.html")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    beyond = re.search("<title>(.*?)</title>", done.stdout)[1].split(",")
    assert dict(zip(names, beyond, strict=True)) == dict.fromkeys(names, "0")
