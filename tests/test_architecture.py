"""The house rules that a reader relies on: imports run downward, the package imports itself by relative names only."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = REPOSITORY / "src" / "aleatoric"
MODULES = sorted(PACKAGE.rglob("*.py"))

# A room may import rooms that stand on an EARLIER line, and itself; rooms of one line do not know each other.
FLOORS = [
    ["errors", "files", "pieces", "precision", "randomness"],
    ["distributions"],
    ["outputs", "statistics", "tables", "transforms", "metrics", "visualize"],
    ["networks", "losses", "data"],
    ["inferers", "engines", "handlers", "diagnostics", "runs"],
    ["evaluation"],
    ["history", "report", "show", "inspection"],
    ["apps", "cli"],
    ["__main__"],
]
LEVEL = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
# The package's own __init__ holds the version and imports nothing, so everyone may read it.
LEVEL["__init__"] = -1


def room(parts: tuple[str, ...]) -> str:
    """First name below the package: ``("networks", "nets", "x")`` -> ``networks``; the package itself: ``__init__``."""
    return parts[0] if parts else "__init__"


def imported(module: Path, source: str) -> list[tuple[str, int]]:
    """Rooms that ``module`` imports, with the line; absolute imports of the package count as room ``<absolute>``."""
    package = module.relative_to(PACKAGE).parent.parts
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1] + tuple(
                (node.module or "").split(".") if node.module else ()
            )
            names = [(*base, alias.name) for alias in node.names] if not base else [base]
            for name in names:
                known = (PACKAGE / name[0]).is_dir() or (PACKAGE / f"{name[0]}.py").is_file()
                found.append((room(name) if known else "__init__", node.lineno))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "aleatoric":
            found.append(("<absolute>", node.lineno))
        elif isinstance(node, ast.Import):
            found += [("<absolute>", node.lineno) for alias in node.names if alias.name.split(".")[0] == "aleatoric"]
    return found


def breaches(module: Path, source: str) -> list[str]:
    """Sentences, one for each import of ``module`` that runs upward or sideways, or is absolute."""
    parts = module.relative_to(PACKAGE).with_suffix("").parts
    home = room(parts)
    return [
        f"{'/'.join(parts)}:{line} ({home}) imports {other}"
        for other, line in imported(module, source)
        if other != home and not LEVEL.get(other, 99) < LEVEL[home]
    ]


def test_every_room_has_its_floor() -> None:
    rooms = {room(module.relative_to(PACKAGE).with_suffix("").parts) for module in MODULES}
    assert rooms <= set(LEVEL), "say in FLOORS on which floor the new room stands"


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_run_downward(module: Path) -> None:
    assert breaches(module, module.read_text()) == []


@pytest.mark.parametrize(
    ("module", "source", "breach"),
    [
        ("losses/x.py", "from ..networks.nets import ProbabilisticUNet", "networks"),
        ("losses/x.py", "from .. import networks", "networks"),
        ("metrics/x.py", "def f():\n    from ..losses import KLDivergence", "losses"),
        ("networks/nets/x.py", "from ...cli import main", "cli"),
        ("data/x.py", "import aleatoric.errors", "<absolute>"),
        ("data/x.py", "from aleatoric.errors import InputError", "<absolute>"),
    ],
)
def test_the_law_sees_a_breach(module: str, source: str, breach: str) -> None:
    (sentence,) = breaches(PACKAGE / module, source)
    assert sentence.endswith(f"imports {breach}")


def test_the_law_lets_downward_imports_pass() -> None:
    source = "from ..errors import InputError\nfrom .. import __version__\nfrom .y import z\nimport numpy"
    assert breaches(PACKAGE / "data" / "x.py", source) == []


def test_no_committed_file_names_a_machine_path() -> None:
    """A path that exists on one machine only has no place in a repository."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    pattern = re.compile(r"(?<![\w.~])/(?:work|root|opt|home/\w+|Users/\w+)/\w|/tmp/\w+_jobs|site-packages/\w+/\w")
    hits = []
    for name in filter(None, listed.stdout.split("\0")):
        file = REPOSITORY / name
        if file != Path(__file__).resolve() and file.is_file():
            text = file.read_bytes().decode("utf-8", errors="ignore")
            hits += [f"{name}: {match.group()}" for match in pattern.finditer(text)]
    assert hits == []
