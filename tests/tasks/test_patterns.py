"""Checks that model output is only matched with patterns of bounded running time.

Modules that parse model output use `re2`, whose running time is linear, or string methods. The modules in `KEEPS_RE`
may use `re` for the reason given. Their patterns must pass `faults`, which proves that matching a text of n characters
takes O(n) from each starting position, so that a search takes at most O(n^2). Modules in `LINEAR` parse longer texts;
there a search must take O(n).
"""

import ast
import importlib
import itertools
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[2]
SCOPE = ("mass_jax", "experiments")
SHORT = "parses answers of at most 1,000 characters"
KEEPS_RE = {
    "mass_jax/tasks/grading/answer.py": SHORT,
    "mass_jax/tasks/grading/chains.py": SHORT,
    "mass_jax/tasks/grading/digits.py": SHORT,
    "mass_jax/tasks/grading/judge.py": SHORT,
    "mass_jax/tasks/grading/latex.py": SHORT,
    "mass_jax/tasks/grading/leaf.py": SHORT,
    "mass_jax/tasks/grading/relations.py": SHORT,
    "mass_jax/tasks/grading/symbolic.py": SHORT,
    "mass_jax/tasks/grading/units.py": SHORT,
    "mass_jax/tasks/near_duplicates.py": "matches a token every few characters, for which re2 is forty times slower",
    "mass_jax/tasks/math/sources.py": "reads data sets, not model output",
    "mass_jax/runtime/jsonl.py": "skips blanks and commas and looks for single characters",
    "mass_jax/metagrad/support.py": "reads messages and names of optax",
    "mass_jax/metagrad/transformations.py": "reads messages and names of optax",
    "mass_jax/planning/plan_page.py": "escapes single characters of names",
    "mass_jax/planning/measure.py": "reads messages of the compiler",
}
LINEAR = {"mass_jax/tasks/near_duplicates.py"}
# Functions of `re` that take a pattern first.
_TAKES_PATTERN = {"compile", "match", "search", "fullmatch", "findall", "finditer", "split", "sub", "subn"}

# All ASCII characters and some of each other category; two character classes overlap if they share one of these.
_ALPHABET = [*map(chr, range(128)), *"é²٣中\x85\u2003\u017f\u212a\U0001d7d8"]
_CHECK = (frozenset(_ALPHABET), True, False)  # an assertion, which may fail anywhere
_MAX_PATHS = 2000
_ops = re._constants
_REPEATS = (_ops.MAX_REPEAT, _ops.MIN_REPEAT)


class Unproved(Exception):
    """A pattern whose running time cannot be shown to be bounded; the message is the reason."""


def faults(pattern, flags=0, linear=False):
    """Returns why a pattern of `re` may take more than linear time from one starting position, or "".

    Rejects nested unbounded repetition, repetition of an ambiguous group such as `(?:a|aa)*`, and two unbounded
    repetitions of overlapping characters without a separator between them. With `linear`, also rejects patterns that
    can fail after an unbounded repetition, since a search then tries every starting position.
    """
    parsed = re._parser.parse(pattern, flags)
    try:
        for path in _paths(parsed, bool(parsed.state.flags & re.IGNORECASE)):
            _check_path(path)
            repeated = [unbounded for _, _, unbounded in path]
            if linear and True in repeated and any(mandatory for _, mandatory, _ in path[repeated.index(True) + 1 :]):
                raise Unproved("a match can fail after an unbounded repetition")
    except Unproved as reason:
        return str(reason)
    return ""


def _paths(items, ignore_case):
    """Returns all paths through a pattern, as sequences of (characters, mandatory, unbounded)."""
    paths = [[]]
    for op, value in items:
        choices = list(_choices(op, value, ignore_case))
        if len(paths) * len(choices) > _MAX_PATHS:
            raise Unproved("too many alternatives to check")
        paths = [path + choice for path in paths for choice in choices]
    return paths


def _choices(op, value, ignore_case):
    """Yields the sequences of atoms that one element of a pattern matches."""
    if op in _REPEATS:
        yield from _repeated(*value, ignore_case)
    elif op is _ops.SUBPATTERN:
        yield from _paths(value[3], ignore_case or bool(value[1] & re.IGNORECASE))
    elif op is _ops.BRANCH:
        for branch in value[1]:
            yield from _paths(branch, ignore_case)
    elif op in (_ops.ASSERT, _ops.ASSERT_NOT):
        yield [_CHECK]
        yield from (path for path in _paths(value[1], ignore_case) if any(unbounded for _, _, unbounded in path))
    elif op is _ops.AT:
        yield [_CHECK]
    elif op in (_ops.ATOMIC_GROUP, _ops.POSSESSIVE_REPEAT, _ops.GROUPREF, _ops.GROUPREF_EXISTS):
        raise Unproved(f"{op} is not supported")
    else:
        yield [(_characters(op, value, ignore_case), True, False)]


def _repeated(least, most, items, ignore_case):
    """Yields the sequences of atoms of a repetition."""
    paths = list(_paths(items, ignore_case))
    inner = any(unbounded for path in paths for _, _, unbounded in path)
    if most is not _ops.MAXREPEAT:
        if least == 0:
            yield []
        yield from (path * 2 if most > 1 and inner else path for path in paths)
        return
    if inner:
        raise Unproved("unbounded repetition inside unbounded repetition")
    if any(not path or not all(mandatory for _, mandatory, _ in path) for path in paths):
        raise Unproved("an unbounded repetition of a group with optional parts")
    if any(a[0][0] & b[0][0] for a, b in itertools.combinations(paths, 2)):
        raise Unproved("an unbounded repetition of alternatives that begin alike")
    if any(op in _REPEATS and value[0] != value[1] for op, value in _flat(items)):
        raise Unproved("an unbounded repetition of a group of varying length")
    yield [(frozenset().union(*(characters for path in paths for characters, _, _ in path)), least > 0, True)]


def _flat(items):
    """Yields the elements of a pattern, including those in groups and alternatives."""
    for op, value in items:
        yield op, value
        if op is _ops.SUBPATTERN:
            yield from _flat(value[3])
        elif op is _ops.BRANCH:
            yield from itertools.chain.from_iterable(map(_flat, value[1]))


def _characters(op, value, ignore_case):
    """Returns the characters of the alphabet that a single-character element matches."""
    code = [(op, value)] if op is not _ops.IN else value
    negated = any(each is _ops.NEGATE for each, _ in code)
    found = {char for char in _ALPHABET if any(_matches(*each, char, ignore_case) for each in code)}
    return frozenset(set(_ALPHABET) - found if negated else found)


def _matches(op, value, char, ignore_case):
    forms = {char, char.lower(), char.upper(), char.swapcase()} if ignore_case else {char}
    codes = {ord(form) for form in forms if len(form) == 1}
    if op is _ops.LITERAL:
        return value in codes
    if op is _ops.NOT_LITERAL:
        return value not in codes
    if op is _ops.RANGE:
        return any(value[0] <= code <= value[1] for code in codes)
    if op is _ops.CATEGORY:
        name = str(value).removeprefix("CATEGORY_").lower()
        letter = {"digit": "d", "space": "s", "word": "w"}[name.removeprefix("not_")]
        return bool(re.match(f"\\{letter.upper() if name.startswith('not_') else letter}", char))
    if op is _ops.ANY:
        return True
    if op is _ops.NEGATE:
        return False
    raise Unproved(f"{op} is not supported")


def _check_path(path):
    """Raises Unproved if two unbounded repetitions can divide the same characters in many ways."""
    repeats = [i for i, (_, _, unbounded) in enumerate(path) if unbounded]
    for first, second in itertools.combinations(repeats, 2):
        a, b = path[first][0], path[second][0]
        between = [atom[0] for atom in path[first + 1 : second] if atom[1]]
        apart = any(not atom & a or not atom & b for atom in between)
        if a & b and not apart:
            shown = "".join(sorted(a & b))[:8]
            raise Unproved(f"two unbounded repetitions can both match {shown!r}, without a separator between them")


def readers():
    """Returns the modules of the package and the commands, as paths relative to the root."""
    return [str(path.relative_to(ROOT)) for name in SCOPE for path in sorted((ROOT / name).rglob("*.py"))]


def imports_re(tree):
    """Returns whether a module imports the standard library's `re`, under any name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) and any(
            alias.name.split(".")[0] in ("re", "sre_compile") for alias in node.names
        ):
            return True
        if isinstance(node, ast.ImportFrom) and node.module in ("re", "sre_compile"):
            return True
    return False


def patterns_of(path):
    """Yields (line, pattern) of every pattern that a module passes to `re`.

    A pattern inside a function must be a literal, a constant of the module, or an argument for which every caller
    passes one of these.
    """
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    assert not any(isinstance(node, ast.ImportFrom) and node.module == "re" for node in ast.walk(tree)), (
        f"{path}: write `import re`, so that the test can find its patterns"
    )
    module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
    for function, call in _calls(tree):
        target = call.func
        if not (isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name) and target.value.id == "re"):
            continue
        if target.attr not in _TAKES_PATTERN or not call.args:
            continue
        if function is None:  # evaluated at import; the result is a constant of the module
            continue
        for value in _values(call.args[0], vars(module), function):
            yield call.lineno, value.pattern if isinstance(value, re.Pattern) else value
    for value in _compiled(vars(module)):
        yield 0, value


def _calls(tree):
    """Returns (enclosing function or None, call) of every call."""
    found = []

    def visit(node, function):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for child in node.body:
                visit(child, node)
            return
        if isinstance(node, ast.Call):
            found.append((function, node))
        for child in ast.iter_child_nodes(node):
            visit(child, function)

    visit(tree, None)
    return found


def _values(expression, names, function):
    """Yields the values of a pattern's expression, with the arguments that callers pass to the enclosing function."""
    used = {node.id for node in ast.walk(expression) if isinstance(node, ast.Name)}
    arguments = [argument.arg for argument in function.args.args]
    open_names = [name for name in arguments if name in used]
    given = [_given(function.name, arguments.index(name)) for name in open_names]
    code = compile(ast.Expression(expression), "<pattern>", "eval")
    for values in itertools.product(*given):
        try:
            yield eval(code, {**names, **dict(zip(open_names, values, strict=True))})  # trusted source code
        except NameError as error:
            raise AssertionError(f"{function.name}: {error}; write the pattern as a constant of the module") from None


def _given(name, position):
    """Returns the values that callers in the modules of `KEEPS_RE` pass for an argument of a function."""
    values = []
    for path in KEEPS_RE:
        module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
        for _, call in _calls(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
            called = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            if called == name:
                code = compile(ast.Expression(call.args[position]), "<argument>", "eval")
                values.append(eval(code, dict(vars(module))))
    return values


def _compiled(value):
    """Yields the compiled patterns in a module's constants, including those in tuples, lists and dicts."""
    if isinstance(value, re.Pattern):
        yield value
    elif isinstance(value, dict):
        for name, each in value.items():
            if not (isinstance(name, str) and name.startswith("__")):
                yield from _compiled(each)
    elif isinstance(value, tuple | list | set | frozenset):
        for each in value:
            yield from _compiled(each)


@pytest.mark.parametrize("path", readers())
def test_module_uses_linear_engine(path):
    if imports_re(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        assert path in KEEPS_RE, f"{path}: use re2 or string methods instead of re"
    else:
        assert path not in KEEPS_RE, f"{path} no longer imports re; remove it from KEEPS_RE"


@pytest.mark.parametrize("path", KEEPS_RE)
def test_kept_patterns_are_bounded(path):
    if not imports_re(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        pytest.skip("does not import re")  # reported by the test above
    found = {}
    for line, pattern in patterns_of(path):
        text, flags = (
            (pattern.pattern, pattern.flags & re.IGNORECASE) if isinstance(pattern, re.Pattern) else (pattern, 0)
        )
        if reason := faults(text, flags, path in LINEAR):
            found[text] = f"line {line}: {reason}" if line else reason
    assert not found, "\n".join(f"{text}: {reason}" for text, reason in found.items())


@pytest.mark.parametrize(
    "pattern",
    [
        r"(?:[A-Za-z]+\.? ?(?:/ ?)?)+\d",  # each word doubles the time
        r"(a+)+b",
        r"(?:a|aa)+b",
        r"(?:ab?)*c",
        r"(?:a{1,2})*b",
        r"a*a*b",
        r"\s*,?\s*x",
        r"\w+\d+x",
        r".*a.*b",
        r"[a-z]+(?:[0-9]?)[a-z]+!",
        r"(?:[a-z]+ ?){3}!",
        r"a+(?=.*x)",
        r"(?i)[a-z]+[A-Z]+1",
        r"(a+)\1",
    ],
)
def test_faults_finds_slow_pattern(pattern):
    assert faults(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        r"\\[a-z]+|[a-z]+|\d+",
        r"\s*,\s*x",
        r"<<[^<>]*>>",
        r"[1-9][0-9]{0,2}(?:,[0-9]{3})+",
        r"(?:[a-z]+ ){3};",
        r"(?:\\[!,]|\{,\})+(?=\d{3}(?!\d))",
        r"[a-z]+[A-Z]+1",
        r"[0-9]+(?:\.[0-9]*)?(?:[eE][0-9]+)?",
        r"(?s)\$(.*)\$",
    ],
)
def test_faults_accepts_linear_pattern(pattern):
    assert faults(pattern) == ""


@pytest.mark.parametrize("pattern", [r"\s+$", r"<[^>]*>", r"a*b", r"[a-z]+(?=x)", r"\d+\b"])
def test_faults_finds_quadratic_search(pattern):
    assert faults(pattern, linear=True)
    assert faults(pattern) == ""


def test_compiled_searches_module_constants():
    assert {p.pattern for p in _compiled({"a": re.compile("x"), "b": [(re.compile("y"), 1)]})} == {"x", "y"}
