"""How Sphinx makes the site of these pages: `make docs`, then docs/_build/html/index.html."""

import re

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

from balancemm_cli import __version__

project = "bmm"
author = "the balancemm-cli authors"
release = __version__
extensions = ["myst_parser"]
exclude_patterns = ["_build"]
nitpicky = True
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
smartquotes = False  # which would make a dash of --data
highlight_language = "none"  # of blocks that name no language
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_title = f"bmm {release}"
html_math_renderer = "mathml"
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False


def setup(app):  # noqa: ANN001, ANN201
    """Tables of contents from the pages' own lists of links, and equations as MathML, which needs no script."""
    app.connect("source-read", add_contents)
    app.add_html_math_renderer("mathml", (write_math, None), (write_math, None))


def add_contents(app, name: str, source: list[str]) -> None:  # noqa: ANN001
    """An index page contains what its lists link: no directive stands in a page that is also read as it is."""
    if name.rpartition("/")[2] == "index":
        linked = re.findall(r"^[-|] (?:\d\. )?\[[^]]*\]\(([^):]+)\.md\)", source[0], re.M)
        source[0] += "\n\n```{toctree}\n:hidden:\n\n" + "\n".join(linked) + "\n```\n"


def write_math(writer, node) -> None:  # noqa: ANN001
    """An equation of a page as MathML."""
    if isinstance(node, nodes.math_block):
        writer.body.append(f'<div class="math-wrapper">{tex2mathml(node.astext(), as_block=True)}</div>')
    else:
        writer.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode
