"""The shape of the code, checked on its syntax trees: layers, homes of libraries, sizes,
and what is not allowed."""
import ast
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from swinmpi.config.families import FAMILIES
from swinmpi.sampling.superresolve import EXCHANGES

PACKAGE = Path(__file__).parents[1] / "swinmpi"
LAYERS = [{"errors", "interruption", "randomness"}, {"config"},
          {"diffusion", "windows", "models", "images"}, {"parallel", "storage"},
          {"reports", "families"}, {"sampling", "evaluation"},
          {"training"}, {"benchmarks"}, {"experiments"}, {"cli"}]
PURE = {"diffusion", "windows", "models", "images"}
HOMES = {"mpi4py": {"parallel"}, "h5py": {"storage"},
         "hdf5plugin": {"storage"}, "safetensors": {"storage"},
         "yaml": {"config"}, "argparse": {"cli", "benchmarks"}, "pickle": {"parallel"}}
MAX_LINES, MAX_FILES, MAX_ARGUMENTS = 320, 20, 7
MODULES = sorted(PACKAGE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text(), filename=str(path)) for path in MODULES}

every_module = pytest.mark.parametrize("path", MODULES,
                                       ids=lambda path: str(path.relative_to(PACKAGE)))


def room_of(path: Path) -> str:
    """The room a module lies in: its folder, or itself at the top."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path: Path) -> list[tuple[str, int]]:
    """(full module name, line) of everything imported anywhere in a module,
    inside functions too."""
    found = []
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, (
                f"{path}:{node.lineno}: a relative import hides which layer it reaches into")
            found += [(f"{node.module}.{alias.name}" if node.module == "swinmpi" else node.module,
                       node.lineno) for alias in node.names]
    return found


def level_of(room: str) -> int:
    return next(level for level, rooms in enumerate(LAYERS) if room in rooms)


@every_module
def test_imports_point_down(path):
    own = room_of(path)
    if own in ("__init__", "demo"):
        assert not [name for name, _ in imports_of(path) if name.startswith("swinmpi.")]
        return
    for name, line in imports_of(path):
        parts = name.split(".")
        if parts[0] != "swinmpi" or len(parts) < 2 or parts[1] in ("__version__", "demo", own):
            continue
        allowed = level_of(parts[1]) < level_of(own)
        assert allowed, f"{path}:{line}: {own} may not import {name}"


@every_module
def test_a_library_has_one_home(path):
    for name, line in imports_of(path):
        homes = HOMES.get(name.split(".")[0])
        assert homes is None or room_of(path) in homes, (
            f"{path}:{line}: {name} belongs into {homes}")


@every_module
def test_a_module_is_short_and_says_what_it_is_for(path):
    lines = len(path.read_text().splitlines())
    assert lines <= MAX_LINES, f"{path}: {lines} lines, more than {MAX_LINES}: split it by purpose"
    assert ast.get_docstring(TREES[path]), f"{path}: its first line should say what it is for"


def test_no_room_is_crowded():
    """Folders inside a room, such as benchmarks/network, count for themselves."""
    rooms = Counter(path.parent for path in MODULES if path.name != "__init__.py")
    assert {str(room): files for room, files in rooms.items() if files > MAX_FILES} == {}


@every_module
def test_torch_distributed_has_one_home(path):
    names = [line for name, line in imports_of(path) if name.startswith("torch.distributed")]
    names += [node.lineno for node in ast.walk(TREES[path])
              if isinstance(node, ast.ImportFrom) and node.module == "torch"
              and "distributed" in [alias.name for alias in node.names]]
    assert room_of(path) == "parallel" or not names, f"{path}:{names}"


@every_module
def test_a_function_has_few_arguments(path):
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.FunctionDef):
            given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            names = [one.arg for one in given if one.arg not in ("self", "cls")]
            assert len(names) <= MAX_ARGUMENTS, f"{path}:{node.lineno}: {node.name} takes {names}"


def comparisons_with(path: Path, words: set[str]) -> Iterator[int]:
    """Lines on which one of these words is compared with something, or looked for in something;
    `thesis` is also the name of a benchmark, which is asked for as `what`."""
    for node in ast.walk(TREES[path]):
        sides = [node.left, *node.comparators] if isinstance(node, ast.Compare) else []
        if isinstance(node, ast.MatchValue):
            sides = [node.value]
        if any(ast.unparse(side).endswith(".what") for side in sides):
            continue
        constants = [one.value for side in sides for one in ast.walk(side)
                     if isinstance(one, ast.Constant)]
        if words.intersection(value for value in constants if isinstance(value, str)):
            yield node.lineno


@every_module
def test_nobody_asks_which_family_a_model_is_of(path):
    """The seam of families: a new one is a file there, its networks and its section."""
    if room_of(path) in ("families", "models", "config"):
        return
    # "bicubic" is a family, and also what data.calibration makes of darks and flats.
    assert list(comparisons_with(path, set(FAMILIES) - {"bicubic"})) == []
    classes = {section.__name__ for section in FAMILIES.values()} | {
        "Aligned", "Thesis", "Srdiff", "Vanilla", "Wavelet", "Regression"}
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance":
            asked = {name.id for name in ast.walk(node.args[1]) if isinstance(name, ast.Name)}
            assert not asked & classes, f"{path}:{node.lineno}"


@every_module
def test_nobody_but_sampling_asks_which_exchange_it_is(path):
    """The seam of exchanges: a new one is a file in sampling and a line in its table."""
    if room_of(path) not in ("sampling", "config"):
        assert list(comparisons_with(path, set(EXCHANGES))) == []


@every_module
def test_no_setting_of_training_decides_how_a_family_samples(path):
    if room_of(path) not in ("families", "sampling", "diffusion", "models"):
        return
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Attribute) and node.attr == "train":
            assert not ast.unparse(node.value).endswith("config"), f"{path}:{node.lineno}"


def test_there_is_one_loop_over_the_steps():
    """diffusion/reverse.py holds it; predict and advance are called nowhere else."""
    callers = {path.relative_to(PACKAGE).as_posix() for path in MODULES
               for node in ast.walk(TREES[path]) if isinstance(node, ast.Call)
               and isinstance(node.func, ast.Attribute) and node.func.attr == "advance"
               and len(node.args) == 2}
    assert callers == {"diffusion/reverse.py"}


@every_module
def test_nothing_unwanted_is_called(path):
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Assert):
            assert node.msg is not None, f"{path}:{node.lineno}: an assert without message"
        if not isinstance(node, ast.Call):
            continue
        called, where = ast.unparse(node.func), f"{path}:{node.lineno}"
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        assert called != "print" or room_of(path) not in PURE, f"{where}: a pure layer prints"
        assert called not in ("eval", "exec", "os.system"), f"{where}: {called}"
        if called == "torch.load":
            assert given.get("weights_only") == "True", (
                f"{where}: torch.load needs weights_only=True")
        if called in ("yaml.load", "yaml.load_all"):
            assert given.get("Loader") == "StrictLoader", f"{where}: YAML is read by StrictLoader"
        assert called not in ("yaml.unsafe_load", "yaml.full_load", "yaml.safe_load"), (
            f"{where}: YAML is read by StrictLoader")
        if called in ("np.load", "numpy.load"):
            assert given.get("allow_pickle", "False") == "False", f"{where}: nothing is unpickled"
        if called.startswith("subprocess."):
            assert given.get("shell", "False") == "False", f"{where}: no shell"


@every_module
def test_the_maths_knows_no_clock_file_or_global_generator(path):
    if room_of(path) not in ("diffusion", "windows"):
        return
    allowed = ({"math", "warnings", "numpy", "torch", "swinmpi", *sys.stdlib_module_names}
               - {"os", "random", "time", "pathlib"})
    for name, line in imports_of(path):
        assert name.split(".")[0] in allowed, f"{path}:{line}: {name} in a pure layer"


@every_module
def test_the_counter_based_generator_has_one_home(path):
    """Its words decide results and files on disk, so they are checked and listed in one place."""
    if path == PACKAGE / "randomness.py":
        return
    for node in ast.walk(TREES[path]):
        name = getattr(node, "attr", getattr(node, "id", getattr(node, "name", "")))
        where = f"{path}:{getattr(node, 'lineno', 0)}"
        assert name != "Philox", f"{where}: Philox belongs into swinmpi.randomness"


def test_every_room_is_known():
    rooms = {room_of(path) for path in MODULES} - {"__init__", "demo"}
    assert rooms == set().union(*LAYERS)


def test_command_line_imports_nothing_slow_before_parsing():
    """--help must answer without torch and MPI: they are imported inside functions."""
    slow = {"torch", "mpi4py", "h5py", "numpy", "skimage", "lpips"}
    for path in (path for path in MODULES if room_of(path) == "cli"):
        for node in TREES[path].body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else \
                [node.module] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                parts = name.split(".")
                heavy = (parts[0] in slow
                         or (parts[0] == "swinmpi" and len(parts) > 1 and parts[1]
                             in {"families", "sampling", "training", "evaluation", "benchmarks",
                                 "experiments", "reports", "models", "storage", "diffusion",
                                 "windows", "images"}))
                assert not heavy, (
                    f"{path}:{node.lineno}: {name} is imported before the command line is parsed")
