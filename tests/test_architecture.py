"""What the architecture page and the modules' docstrings claim is so."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CORE = ROOT / "packages/core/src/pyscopg2/core"
PAGE = (ROOT / "packages/core/docs/architecture.md").read_text()

TABLE = PAGE.partition("<!-- modules -->")[2].partition("<!-- end of modules -->")[0]
ROWS = [
    (cells[1].strip(), cells[3].strip())
    for cells in (line.split("|") for line in TABLE.strip().splitlines()[2:])
]


def modules() -> Iterator[Path]:
    return (path for path in CORE.rglob("*.py") if path.stem != "__init__")


def test_the_page_has_a_line_for_each_module_of_the_core_and_no_other() -> None:
    listed: list[str] = []
    room = ""
    for name, _ in ROWS:
        word = name.strip("*`")
        if name.startswith("**") and word.endswith("/"):
            room = word
        elif name.startswith("**"):
            listed.append(f"{word}.py")
        else:
            listed.append(room + word.replace(".", "/") + ".py")
    assert sorted(listed) == sorted(str(path.relative_to(CORE)) for path in modules())


@pytest.mark.parametrize(("name", "tests"), [row for row in ROWS if "test" in row[1]])
def test_the_tests_that_a_line_names_are_there(name: str, tests: str) -> None:
    for test in re.findall(r"`(.*?)`", tests):
        path = ROOT / (test if "/" in test else f"tests/core/{test}")
        assert path.exists(), f"{name}: {test}"


def assigned(tree: ast.AST, attribute: str) -> bool:
    """Whether something is assigned to an attribute of that name."""
    for node in ast.walk(tree):
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AugAssign | ast.AnnAssign):
            targets = [node.target]
        if any(isinstance(t, ast.Attribute) and t.attr == attribute for t in targets):
            return True
    return False


def test_counting_happens_in_slots_alone() -> None:
    counting = {path.name for path in modules() if assigned(ast.parse(path.read_text()), "in_use")}
    # A host pool begins with none.
    assert counting == {"host_pool.py", "slots.py"}


def test_the_limit_is_decided_by_the_connect_trial_alone() -> None:
    deciding = {path.name for path in modules() if assigned(ast.parse(path.read_text()), "limit")}
    assert deciding == {"connect_trial.py"}


def test_publishing_is_for_the_store_alone() -> None:
    changing: set[str] = set()
    for path in modules():
        calls = {
            node.func.attr
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        }
        if calls & {"apply", "settle", "mark_overdue"} and path.parent.name == "topology":
            changing.add(path.name)
    assert changing == {"store.py"}
    store = ast.parse((CORE / "topology/store.py").read_text())
    functions = {n.name: n for n in ast.walk(store) if isinstance(n, ast.FunctionDef)}
    assert {"publish", "_change"} <= functions.keys(), "neither awaits"


def test_whom_a_request_may_have_is_for_selection_alone() -> None:
    """Nobody else in the checkout room looks at roles, but to name a host that is to blame, to
    end what is out on one that is superseded, and to show them."""
    looking = {
        path.name
        for path in (CORE / "checkout").glob("*.py")
        if re.search(r"\.masters\b|\.replicas\b|\.serving\b|Role\.", path.read_text())
    }
    assert looking == {"census.py", "checkouts.py", "explanation.py", "selection.py"}
    candidates = re.compile(r"\bcandidates\(.*topology")
    calling = {path.name for path in modules() if candidates.search(path.read_text())}
    assert calling == {"slots.py"}


def test_three_callbacks_go_uphill() -> None:
    """Those that constructors get. A timer's is what it is for, and drivers' verbs lead down."""
    found: set[tuple[str, str]] = set()
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.ClassDef):
                continue
            for item in node.body:
                if isinstance(item, ast.FunctionDef) and item.name == "__init__":
                    given = (*item.args.args, *item.args.kwonlyargs)
                    for each in given:
                        if each.annotation and "Callable" in ast.unparse(each.annotation):
                            found.add((node.name, each.arg))
    drivers = {("RoleQuery", "fetch"), ("RoleQuery", "sqlstate")}
    drivers |= {(name, arg) for name, arg in found if name in {"AsyncpgPools", "PoolArguments"}}
    values = {("Alarm", "callback"), ("Live", "is_heard")}
    assert found - drivers - values == {
        ("Checkouts", "start"),
        ("Slots", "emptied"),
        ("Watchdog", "bite"),
    }


def test_each_word_of_the_glossary_stands_once() -> None:
    words = re.findall(r"^\| (\w[\w ,-]*) \|", PAGE.partition("## Glossary")[2], re.MULTILINE)[1:]
    assert len(words) > 15
    assert len(words) == len(set(words))


@pytest.mark.parametrize("path", sorted(modules()), ids=lambda path: path.stem)
def test_the_old_words_are_gone(path: Path) -> None:
    """One word for one thing: see the glossary."""
    text = path.read_text()
    assert not re.search(r"\bspells?\b|\bSpell\b|\bPlaces\b", text)
    if path.parent.name == "checkout":
        assert not re.search(r"\bplaces\b|\ba place\b|\bits place\b|\bdoubt", text)
