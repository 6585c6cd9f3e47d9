"""Which room of the package may know which: every import is read, also those inside functions."""

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# A room (the first name after `lsanet_jax.`) may import from itself and from the levels above its
# own in this table, which therefore reads from the ground up. Rooms of one level do not know each
# other: so models, losses and data know nothing of each other, nor of training.
LEVELS = (
    {"errors"},
    {"keys", "runtime"},
    {"models", "losses", "metrics", "data", "imbalance"},
    {"config", "steps", "optim"},
    {"runs"},
    {"predict", "export", "evaluation", "monitor", "build"},
    {"train", "evaluate"},
    {"main", "audit", "sweeps"},
    {"report"},
    {"__main__"},  # `lsanet train | predict | ...`
)
LEVEL_OF = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}
# The face names what others define and imports it when it is asked for. From inside the package
# only its version is of use.
FACE = "lsanet_jax"
GROUND = {"errors", "keys", "losses", "metrics", "optim"}
NO_SCIENCE = {"errors", "runtime"}


@functools.cache
def modules(package: str = FACE) -> dict[str, Path]:
    """The modules of a package of this repository, by name."""
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def packages_of(name: str) -> list[str]:
    """`a.b.c` -> [`a.b`, `a`]: what Python imports before it."""
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(len(parts) - 1, 0, -1)]


def imported(path: Path) -> Iterator[str]:
    """The names that a file imports, as `package.module` or `package.module.attribute`."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@functools.cache
def arrows() -> dict[str, set[str]]:
    """For each module of the package the modules of the package that it names in an import."""
    known = modules()
    found: dict[str, set[str]] = {}
    for name, path in known.items():
        found[name] = set()
        for target in imported(path):
            # The longest prefix that is a module: the rest is an attribute of it.
            module = next((m for m in (target, *packages_of(target)) if m in known), None)
            if module is not None:
                found[name].add(module)
    return found


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else FACE


def reached(start: str) -> set[str]:
    """All that importing `start` can import, the packages around each module included."""
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        module = waiting.pop()
        if module not in seen:
            seen.add(module)
            waiting += packages_of(module)
            # The face imports its names one by one, when each is used.
            waiting += [] if module == FACE else arrows()[module]
    return seen


def between_rooms() -> list[tuple[str, str]]:
    """The arrows from one room to another, those from and to the face left out."""
    return [
        (source, target)
        for source, targets in arrows().items()
        for target in sorted(targets)
        if room(source) != room(target) and FACE not in (source, target)
    ]


def test_every_room_has_its_level():
    assert {room(name) for name in modules()} - {FACE} <= LEVEL_OF.keys()


def test_no_arrow_points_up():
    up = [
        f"{source} -> {target}"
        for source, target in between_rooms()
        if LEVEL_OF[room(target)] >= LEVEL_OF[room(source)]
    ]
    assert not up


def test_no_modules_import_each_other_in_a_circle():
    remaining = {name: targets - {name, FACE} for name, targets in arrows().items()}
    del remaining[FACE]
    while free := [name for name, targets in remaining.items() if not targets & remaining.keys()]:
        for name in free:
            del remaining[name]
    # What is left lies on a circle or imports one that does.
    assert not {name: sorted(targets & remaining.keys()) for name, targets in remaining.items()}


@pytest.mark.parametrize(
    "start",
    [
        "predict",
        "evaluate",
        "export",
        "models",
        "data",
        "losses",
        "runs.trained",
        "evaluation.statistics",
    ],
)
def test_what_needs_no_training_does_not_import_it(start):
    assert reached(f"lsanet_jax.{start}").isdisjoint({"lsanet_jax.train", "lsanet_jax.monitor"})


@pytest.mark.parametrize("start", sorted(GROUND))
def test_ground_modules_know_only_the_ground(start):
    assert {room(target) for target in arrows()[f"lsanet_jax.{start}"]} <= GROUND


def test_runtime_knows_no_science():
    known = {target for source, target in between_rooms() if room(source) == "runtime"}
    assert {room(target) for target in known} <= NO_SCIENCE


def test_the_two_feeds_know_the_plan_but_not_each_other():
    feed = "lsanet_jax.data.feed"
    for one, other in ("resident", "streaming"), ("streaming", "resident"):
        assert f"{feed}.order" in arrows()[f"{feed}.{one}"]
        assert f"{feed}.{other}" not in arrows()[f"{feed}.{one}"]


def test_the_package_does_not_need_the_repository_around_it():
    beside = {"configs", "launch", "tests", "benchmarks", "examples"}
    for name, path in modules().items():
        assert not {target.split(".")[0] for target in imported(path)} & beside, name


@pytest.mark.parametrize(
    "package, allowed", [("configs", {"config", "sweeps"}), ("launch", {"sweeps"})]
)
def test_what_lies_beside_the_package_knows_only_its_rooms(package, allowed):
    for name, path in modules(package).items():
        known = {t for t in imported(path) if t.startswith("lsanet_jax.")}
        assert {room(target) for target in known} <= allowed, name


def test_importing_the_face_imports_nothing_else_of_the_package():
    tree = ast.parse(modules()[FACE].read_text())
    at_once = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = [ast.unparse(node) for node in at_once if "lsanet_jax" in ast.unparse(node)]
    assert not names
