import ast
from collections import defaultdict
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
# A room imports from those above it in this list, never from one below it (docs/architecture.md).
FLOORS = (
    *("models", "calibration", "errors", "progress", "graph", "store", "cluster", "toolchains"),
    *("runtimes", "lint", "targets", "export", "validate", "quantize", "predict", "training"),
    *("inspect", "report", "bundle", "pipeline", "cli", "bench"),
)
# What reads, writes or runs ONNX does not belong to the networks, torch not to the data.
MAY_NEED = {"models": {"torch", "safetensors"}, "calibration": {"onnx", "onnxruntime"}}
HEAVY = {"torch", "safetensors", "onnx", "onnxruntime", "onnxscript", "onnxsim", "openvino"}
COMMAND_LINES = {"contact_sheet.py", "__main__.py"}  # and the room cli
PLUMBING = {"cli", "errors", "progress", "store"}

FILES = {
    room: sorted(
        path
        for folder in (REPOSITORY / "deploy" / room, REPOSITORY / room)
        for path in (folder.rglob("*.py") if folder.is_dir() else [folder.with_suffix(".py")])
        if path.is_file() and not folder.is_symlink()  # deploy/models and deploy/calibration are
    )
    for room in FLOORS
}
ALL = [(room, path) for room, paths in FILES.items() for path in paths]


def imports(path: Path) -> set[tuple[str, str]]:
    """Return (module, name) of every import in a file, also of those inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {(alias.name, "") for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports are not used here"
            found |= {(str(node.module), alias.name) for alias in node.names}
    return found


def rooms(path: Path) -> set[str]:
    """Return the rooms that a file imports from."""
    dotted = [f"{module}.{name}".split(".") for module, name in imports(path)]
    return {parts[1] for parts in dotted if parts[0] == "deploy" and parts[1] in FLOORS}


def packages(path: Path) -> set[str]:
    return {module.split(".")[0] for module, _ in imports(path)}


def label(value: object) -> str | None:
    return value.relative_to(REPOSITORY).as_posix() if isinstance(value, Path) else None


def test_every_file_is_in_a_room() -> None:
    top = {path.stem if path.is_file() else path.name for path in (REPOSITORY / "deploy").iterdir()}
    assert top - {"__pycache__"} == {*FLOORS, "__init__", "__main__", "py"}
    assert all(FILES.values())


@pytest.mark.parametrize(("room", "path"), ALL, ids=label)
def test_imports_go_one_way(room: str, path: Path) -> None:
    assert not rooms(path) - set(FLOORS[: FLOORS.index(room) + 1])


def test_rooms_depend_on_few_others() -> None:
    arrows = defaultdict(set)
    for room, path in ALL:
        arrows[room] |= rooms(path) - {room}
    assert sum(map(len, arrows.values())) <= 140


@pytest.mark.parametrize("room", MAY_NEED)
def test_imports_of_large_libraries_are_the_rooms_own(room: str) -> None:
    for path in FILES[room]:
        assert packages(path) & HEAVY <= MAY_NEED[room], path


@pytest.mark.parametrize("room", MAY_NEED)
def test_libraries_neither_print_nor_exit(room: str) -> None:
    for path in FILES[room]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        assert not names & {"print", "exit", "quit", "input"}, path
        assert "sys" not in packages(path) or path.name == "__init__.py", path


def test_cli_reaches_the_stages_through_the_api() -> None:
    # of a stage's module the command line takes types (its options' choices), never a function
    names = ("commands.py", "daily.py", "quantizing.py", "report.py")
    files = [REPOSITORY / "deploy" / "cli" / name for name in names]
    taken = [f"{module}.{name}" for file in files for module, name in imports(file)]
    parts = [name.strip(".").split(".") for name in taken if name.startswith("deploy.")]
    of_stages = [n for n in parts if len(n) > 2 and n[1] not in (*PLUMBING, "models")]
    assert [names for names in of_stages if not names[-1][0].isupper()] == []


@pytest.mark.parametrize(
    "path",
    [p for room, p in ALL if room not in ("cli", "models", "calibration")],
    ids=label,
)
def test_only_command_lines_import_typer_or_the_command_line(path: Path) -> None:
    if path.name in COMMAND_LINES:
        return
    modules = {f"{module}.{name}" for module, name in imports(path)} | packages(path)
    assert not {name for name in modules if name.startswith(("typer", "deploy.cli"))}


def test_no_room_imports_the_top_level_folders() -> None:
    # an installed deploy has them as deploy.models and deploy.calibration only
    for _, path in ALL:
        assert not packages(path) & {"models", "calibration"}, path
