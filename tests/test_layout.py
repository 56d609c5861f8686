"""The order of the rooms: which may import which, read from the source."""

import ast
from pathlib import Path

import balancemm_cli

PACKAGE = Path(balancemm_cli.__file__).parent
MAY_IMPORT = {
    "data": set(),
    "metrics": {"tasks"},
    "tasks": set(),
    "models": set(),
    "methods": {"tasks", "models"},
    "config": {"tasks", "models", "methods"},
    "runs": {"config", "data"},
    "engine": {"runs", "config", "metrics", "tasks", "methods", "models", "data"},
    "results": {"runs", "config", "metrics", "data"},
    "testing": {"results", "engine", "runs", "config", "metrics", "tasks", "methods", "models", "data"},
    "cli": {"results", "engine", "runs", "config", "metrics", "tasks", "methods", "models", "data"},
}


def rooms_imported_by(file):
    """The rooms that a file of the package imports, at its head or within a function."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            names = [f"{module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            package, _, rest = name.partition(".")
            room = rest.split(".")[0]
            if package == "balancemm_cli" and (PACKAGE / room).is_dir():
                yield room


def test_imports_go_one_way():
    """cli → results, engine → runs, config, metrics → tasks, methods, models, data; never back."""
    found = {
        (file.relative_to(PACKAGE).parts[0], room, str(file.relative_to(PACKAGE)))
        for file in PACKAGE.rglob("*.py")
        if len(file.relative_to(PACKAGE).parts) > 1
        for room in rooms_imported_by(file)
    }
    wrong = [
        f"{file} imports {room}"
        for mine, room, file in sorted(found)
        if room != mine and room not in MAY_IMPORT[mine]
    ]
    assert not wrong


def test_every_room_has_its_place_in_the_order():
    rooms = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    assert rooms == set(MAY_IMPORT)
