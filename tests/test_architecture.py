"""Who may import whom, and what importing may do, read off the source.

Imports inside functions count too, unless a rule says otherwise: a lazy import is still a
dependency. Run alone with ``pytest tests/test_architecture.py``.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FOUNDATION = {"core.errors", "core.records", "core.arrays"}


@dataclass(frozen=True)
class Import:
    """One imported module; ``is_lazy``: inside a function or under TYPE_CHECKING."""

    module: str
    line: int
    is_lazy: bool


@cache
def modules() -> dict[str, Path]:
    """All modules of the program by dotted name."""
    files = [*ROOT.glob("core/**/*.py"), *ROOT.glob("app/**/*.py"), ROOT / "app.py"]
    return {dotted(file): file for file in files if file.is_file()}


def dotted(file: Path) -> str:
    if file == ROOT / "app.py":
        return "app.py"
    parts = list(file.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def tree(name: str) -> ast.Module:
    return ast.parse(modules()[name].read_text(encoding="utf-8"))


def module_level(node: ast.AST) -> Iterator[ast.AST]:
    """Everything that runs on import: no function bodies, no TYPE_CHECKING blocks."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Lambda):
            continue
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            for run in [*child.decorator_list, *child.args.defaults, *child.args.kw_defaults]:
                if run is not None:
                    yield run
                    yield from module_level(run)
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        if isinstance(child, ast.If) and "__main__" in ast.unparse(child.test):
            continue
        yield child
        yield from module_level(child)


def names_of(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are absolute"
        base = node.module or ""
        return [
            f"{base}.{alias.name}" if f"{base}.{alias.name}" in modules() else base
            for alias in node.names
        ]
    return []


@cache
def imports(name: str) -> tuple[Import, ...]:
    eager = {id(node) for node in module_level(tree(name))}
    return tuple(
        Import(module, node.lineno, id(node) not in eager)
        for node in ast.walk(tree(name))
        for module in dict.fromkeys(names_of(node))
    )


def inside(package: str) -> list[str]:
    found = [name for name in modules() if name == package or name.startswith(package + ".")]
    assert found, f"nothing in {package}: has it been renamed?"
    return found


def is_of(module: str, *packages: str) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


def breaches(importers: list[str], *forbidden: str, allowed: set[str] = frozenset()) -> list[str]:
    return [
        f"{name}:{found.line} imports {found.module}"
        for name in importers
        for found in imports(name)
        if is_of(found.module, *forbidden) and found.module not in allowed
    ]


def test_core_knows_nothing_of_the_page():
    assert not breaches(inside("core"), "app", "gradio", "folium", "branca")


def test_errors_and_records_stand_alone():
    assert not breaches(sorted(FOUNDATION), "core", "app", allowed=FOUNDATION)


# From the ground up. A file or folder imports what stands on a floor below its own, and its own folder.
FLOORS = (
    ("core.errors", "core.records", "core.arrays", "core.devices"),
    ("core.geo", "core.polar", "core.files"),
    ("core.models",),
    ("core.checkpoints", "core.photos", "core.imagery"),
    ("core.gallery", "core.world", "core.data", "core.convert"),
    ("core.explain",),
    ("core.localization",),
    ("core.localizer", "core.evaluation"),
    ("core.training", "core.results"),
    ("core.bench",),
    ("core.commands",),
    ("core.cli", "core.research"),
    ("core.__main__",),
)
FLOOR_OF = {part: floor for floor, parts in enumerate(FLOORS) for part in parts}


def part_of(module: str) -> str:
    """The file or folder directly in core/ to which a module belongs."""
    return ".".join(module.split(".")[:2])


def test_every_part_of_core_stands_on_a_floor():
    parts = {part_of(name) for name in modules() if name.startswith("core.")}
    assert parts == set(FLOOR_OF)


def test_arrows_run_downwards():
    """So there is no import circle of files or folders either."""
    upwards = [
        f"{name}:{found.line} imports {found.module}"
        for name in modules()
        for found in imports(name)
        if name.startswith("core.")
        and found.module.startswith("core.")
        and part_of(found.module) != part_of(name)
        and FLOOR_OF[part_of(found.module)] >= FLOOR_OF[part_of(name)]
    ]
    assert not upwards


def test_core_holds_few_loose_files():
    assert len(list((ROOT / "core").glob("*.py"))) <= 12


def test_models_know_no_files_no_data_and_no_search():
    models = inside("core.models")
    outside = {"core.errors", "core.arrays", "core.devices", "core.polar", *models}
    assert not breaches(models, "core", allowed=outside)
    assert not breaches(models, "faiss", "rasterio", "pyarrow", "geopandas", "PIL", "safetensors")
    assert not breaches(models, "torch.optim", "torch.utils.data", "pathlib", "json", "os")
    assert not any({"open", "torch.load", "torch.save"} & calls_in(name) for name in models)


def test_timm_is_imported_lazily_in_one_place():
    places = [
        (name, found.is_lazy)
        for name in modules()
        for found in imports(name)
        if is_of(found.module, "timm", "torchvision")
    ]
    assert {name for name, _ in places} <= {"core.models.timm_encoder"}
    assert all(is_lazy for _, is_lazy in places)


def test_losses_take_tensors_only():
    losses = ["core.training.losses", "core.training.distillation"]
    assert not breaches(
        losses, "core", "app", allowed={"core.errors", "core.models.azimuth", *losses}
    )
    assert third_party(losses) <= {"torch"}


def test_metrics_are_numpy_only():
    assert third_party(["core.evaluation.metrics"]) <= {"numpy"}
    assert not breaches(["core.evaluation.metrics"], "core", "app", allowed={"core.arrays"})


def test_evaluation_never_calls_training():
    assert not breaches(inside("core.evaluation"), "core.training")


def test_worlds_know_no_model():
    forbidden = ("core.models", "core.training", "core.evaluation", "core.checkpoints", "torch")
    assert not breaches(
        inside("core.world"), *forbidden, "core.localization.localizer", "core.gallery.folder"
    )


def test_benchmarks_are_files_and_arrays():
    data = [*inside("core.data.benchmarks"), "core.data.safa_polar"]
    assert not breaches(data, "core", "app", allowed={"core.errors", "core.arrays", *data})
    assert third_party(data) <= {"numpy", "scipy", "PIL"}


def test_the_shipped_program_never_renders():
    shipped = [name for name in modules() if not is_of(name, "core.world", "core.commands.world")]
    assert not breaches(shipped, "embreex", "trimesh", "core.world")


def test_the_page_talks_to_the_facade():
    page = [name for name in modules() if is_of(name, "app")]
    hidden = ("models", "training", "research", "world", "checkpoints", "commands")
    hidden += ("gallery.index", "gallery.faiss_index", "imagery")
    assert not breaches(page, *(f"core.{name}" for name in hidden), "torch", "faiss")


def test_the_facade_does_not_need_training_or_worlds():
    assert not breaches(["core.localization.localizer"], "core.training", "core.world", "core.data")


def test_only_the_doors_parse_arguments():
    doors = {"app.py", "core.cli", "core.__main__", "core.research.cli", *inside("core.commands")}
    others = [name for name in modules() if name not in doors]
    assert not breaches(others, "argparse", "typer", "click", "optparse")
    assert not [name for name in others if "sys.argv" in modules()[name].read_text("utf-8")]


# A recipe is one run from beginning to end; its seed is written into the card.
SEEDED = {"core.training.tasks"}
# A step seeds torch's own generator, from which dropout draws, and gives it back as it was.
SEEDED |= {"core.training.loop"}


def test_only_the_doors_set_global_switches():
    doors = {"app.py", "core.cli", "core.research.cli", *inside("core.commands")}
    switches = {
        "np.random.seed", "random.seed", "torch.set_num_threads", "torch.set_default_dtype",
        "torch.set_default_device", "torch.use_deterministic_algorithms", "logging.basicConfig",
        "os.chdir", "torch.manual_seed",
    }  # fmt: skip
    for name in modules():
        if name not in doors:
            allowed = {"torch.manual_seed"} if name in SEEDED else set()
            assert not switches & calls_in(name) - allowed, name


def test_importing_reads_nothing_and_changes_nothing():
    harmful = {
        "open", "print", "torch.load", "np.load", "json.load", "os.environ.setdefault",
        "warnings.filterwarnings", "warnings.simplefilter", "sys.path.append", "sys.path.insert",
        "matplotlib.use", "plt.switch_backend", "load_model", "read_bytes", "read_text",
    }  # fmt: skip
    for name in modules():
        if name == "app.py":  # it must switch gradio's analytics off before gradio is imported
            continue
        for node in module_level(tree(name)):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in harmful, f"{name}:{node.lineno} calls {called}"
                assert called.rpartition(".")[2] not in {"read_bytes", "read_text"}, name
            if isinstance(node, ast.Assign):
                targets = [ast.unparse(target) for target in node.targets]
                touched = [t for t in targets if t.startswith(("torch.", "os.environ", "Image."))]
                assert not touched, f"{name}:{node.lineno} sets {touched}"


def test_no_import_goes_in_circles():
    """Modules that import each other on import cannot be read one after the other."""
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name in done:
            return
        for found in imports(name):
            is_package_of = name.startswith(found.module + ".")
            if found.module in modules() and not found.is_lazy and not is_package_of:
                visit(found.module, (*path, name))
        done.add(name)

    for name in modules():
        visit(name, ())


def test_no_drawer_for_odds_and_ends():
    for name in modules():
        assert not {"utils", "util", "common", "base", "helpers", "misc"} & set(name.split(".")), (
            name
        )


def test_the_door_of_the_page_is_short():
    assert len((ROOT / "app.py").read_text(encoding="utf-8").splitlines()) <= 50


def test_nothing_is_left_unfinished():
    words = ("TODO", "FIXME", "XXX", "NotImplementedError")
    for name, file in modules().items():
        text = file.read_text(encoding="utf-8")
        assert not [word for word in words if word in text], name


@cache
def calls_in(name: str) -> frozenset[str]:
    nodes = ast.walk(tree(name))
    return frozenset(ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call))


def third_party(names: list[str]) -> set[str]:
    import sys

    roots = {found.module.partition(".")[0] for name in names for found in imports(name)}
    return roots - set(sys.stdlib_module_names) - {"core", "app"}


def functions_of(name: str) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef, bool]]:
    """Functions and methods of a module with their dotted names; last, whether it is public."""

    def walk(node: ast.AST, path: str, public: bool) -> Iterator[Any]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{path}.{child.name}", child, public and not child.name.startswith("_")
                yield from walk(child, f"{path}.{child.name}", False)
            elif isinstance(child, ast.ClassDef):
                own = public and not child.name.startswith("_")
                yield from walk(child, f"{path}.{child.name}", own)
            else:
                yield from walk(child, path, public)

    yield from walk(tree(name), name, True)


def test_no_function_is_long():
    long = [
        f"{path}: {node.end_lineno - node.lineno + 1} lines"
        for name in modules()
        for path, node, _ in functions_of(name)
        if node.end_lineno - node.lineno + 1 > 60
    ]
    assert not long


def test_public_functions_say_what_they_do_and_take():
    silent, untyped = [], []
    for name in modules():
        for path, node, public in functions_of(name):
            if not public:
                continue
            if ast.get_docstring(node) is None:
                silent.append(path)
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            named = [one for one in arguments if one.arg not in {"self", "cls"}]
            if node.returns is None or any(one.annotation is None for one in named):
                untyped.append(path)
    assert not silent
    assert not untyped


def test_no_six_lines_stand_in_two_places():
    """Lines of code; imports, brackets and what a function takes do not count, comments neither."""
    places: dict[tuple[str, ...], str] = {}
    twice = []
    for name, file in modules().items():
        headers = {
            number
            for _, node, _ in functions_of(name)
            for number in range(node.lineno, node.body[0].lineno)
        }
        lines = [
            (number, line.strip())
            for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1)
            if len(line.strip()) > 3
            and number not in headers
            and not line.strip().startswith(("#", "from ", "import "))
        ]
        for at in range(len(lines) - 5):
            block = tuple(text for _, text in lines[at : at + 6])
            here = f"{name}:{lines[at][0]}"
            if block in places:
                twice.append(f"{places[block]} and {here}")
            places.setdefault(block, here)
    assert not twice
