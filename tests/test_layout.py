"""Structure of the package: imports go down, files and functions stay short, public names have docstrings."""

import ast
import functools
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
# From top to bottom; a room may import rooms below it, and modules of its own.
ROOMS = (
    "experiments",
    "harnesses",
    "serving",
    "serving.guards",
    "evaluation",
    "evaluation.report",
    "planning",
    "training",
    "audit",
    "method",
    "sampling",
    "tasks.registry",
    "tasks.math",
    "tasks.reasoning",
    "tasks.families",
    "tasks.testbed",
    "tasks.grading",
    "tasks",
    "runtime",
    "llama",
    "metagrad",
    "render",
    "base",
)
FILES = sorted(path for top in ("mass_jax", "experiments") for path in (ROOT / top).rglob("*.py"))
PACKAGE_FILES = [path for path in FILES if path.is_relative_to(ROOT / "mass_jax")]


def module_of(path: pathlib.Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


def room_of(module: str) -> str | None:
    """The room of a module; None for the package itself, whose lazy imports reach every room."""
    top, _, rest = module.partition(".")
    if top == "experiments":
        return "experiments"
    if not rest:
        return None
    found = [room for room in ROOMS if f"{rest}.".startswith(f"{room}.")]
    return max(found, key=len) if found else "base"


@functools.cache
def imports_of(path: pathlib.Path) -> set[str]:
    """Modules of the project that a file imports, also inside functions, but not for type checkers only."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    tree.body = [
        node for node in tree.body if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    ]
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                names.add(full if full in MODULES else node.module)
    return names & MODULES.keys()


def test_imports_go_down():
    edges = sorted(
        (module, target)
        for module, path in MODULES.items()
        for target in imports_of(path)
        if room_of(module) and room_of(target) and room_of(module) != room_of(target)
    )
    upward = [edge for edge in edges if ROOMS.index(room_of(edge[0])) > ROOMS.index(room_of(edge[1]))]
    assert edges
    assert upward == []


def test_modules_have_no_import_cycles():
    graph = {module: imports_of(path) - {module} for module, path in MODULES.items()}
    remaining = dict(graph)
    while leaves := [module for module, targets in remaining.items() if not targets & remaining.keys()]:
        for module in leaves:
            del remaining[module]
    packages = {module for module in remaining if MODULES[module].name == "__init__.py"}
    # A package's __init__ imports its modules, which may import siblings through the package.
    assert remaining.keys() <= packages | {m for m in remaining if m.rpartition(".")[0] in packages}


def test_rooms_number_at_most_sixteen():
    rooms = {room.partition(".")[0] if room.startswith("tasks") else room for room in ROOMS}
    assert len(rooms - {"experiments"}) <= 16


@pytest.mark.parametrize("path", PACKAGE_FILES, ids=module_of)
def test_files_and_functions_stay_short(path):
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 300
    functions = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert [f.name for f in functions if code_lines(f) > 60] == []


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its docstring."""
    docstring = function.body[0] if ast.get_docstring(function) else None
    return function.end_lineno - function.lineno + 1 - (docstring.end_lineno - docstring.lineno + 1 if docstring else 0)


def public_names(tree: ast.Module):
    """Public classes, functions and methods of a module."""
    defined = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    for node in tree.body:
        if isinstance(node, defined) and not node.name.startswith("_"):
            yield node.name, node
            for inner in node.body if isinstance(node, ast.ClassDef) else ():
                is_overload = isinstance(inner, defined) and any(
                    ast.unparse(d) == "property" or "setter" in ast.unparse(d) for d in inner.decorator_list
                )
                if isinstance(inner, defined) and not inner.name.startswith("_") and not is_overload:
                    yield f"{node.name}.{inner.name}", inner


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_public_names_have_docstrings(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree) is not None or not tree.body
    if path.is_relative_to(ROOT / "mass_jax"):
        assert [name for name, node in public_names(tree) if not ast.get_docstring(node)] == []
