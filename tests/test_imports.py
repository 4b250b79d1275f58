import ast
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
OURS = {"models", "calibration", "deploy"}
MAY_IMPORT = {"models": {"models"}, "calibration": {"calibration"}, "deploy": OURS}
HEAVY = {"torch", "safetensors", "onnx", "onnxruntime", "onnxscript", "onnxsim", "openvino"}
MAY_NEED = {"models": {"torch", "safetensors"}, "calibration": {"onnx", "onnxruntime"}}
COMMAND_LINES = {"contact_sheet.py", "__main__.py"}  # and the package cli
PLUMBING = {"artifacts", "cli", "environment", "errors", "files", "pipeline", "progress"}

SOURCES = {
    package: sorted((REPOSITORY / package).rglob("*.py")) for package in ("models", "calibration")
}
SOURCES["deploy"] = sorted((REPOSITORY / "deploy").rglob("*.py"))
ALL = [path for paths in SOURCES.values() for path in paths]


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


def packages(path: Path) -> set[str]:
    return {module.split(".")[0] for module, _ in imports(path)}


def label(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def test_sources_were_found() -> None:
    assert {label(path) for path in ALL} >= {
        "models/checkpoint.py",
        "calibration/observe.py",
        "deploy/cli/commands.py",
        "deploy/quantize/int8.py",
    }


@pytest.mark.parametrize("path", ALL, ids=label)
def test_imports_of_our_packages_go_one_way(path: Path) -> None:
    package = path.relative_to(REPOSITORY).parts[0]
    assert packages(path) & OURS <= MAY_IMPORT[package]


@pytest.mark.parametrize("path", [*SOURCES["models"], *SOURCES["calibration"]], ids=label)
def test_imports_of_large_libraries_are_the_packages_own(path: Path) -> None:
    package = path.relative_to(REPOSITORY).parts[0]
    assert packages(path) & HEAVY <= MAY_NEED[package]


@pytest.mark.parametrize("path", [*SOURCES["models"], *SOURCES["calibration"]], ids=label)
def test_libraries_neither_print_nor_exit(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert not names & {"print", "exit", "quit", "input"}
    assert "sys" not in packages(path)


def test_cli_reaches_the_stages_through_the_pipeline() -> None:
    # of a stage's module the command line takes types (its options' choices), never a function
    names = ("commands.py", "daily.py", "quantizing.py", "report.py")
    files = [REPOSITORY / "deploy" / "cli" / name for name in names]
    taken = [f"{module}.{name}" for file in files for module, name in imports(file)]
    parts = [name.strip(".").split(".") for name in taken if name.startswith("deploy.")]
    of_stages = [names for names in parts if len(names) > 1 and names[1] not in PLUMBING]
    assert [names for names in of_stages if not names[-1][0].isupper()] == []


@pytest.mark.parametrize(
    "path",
    [p for p in SOURCES["deploy"] if p.name not in COMMAND_LINES and p.parent.name != "cli"],
    ids=label,
)
def test_only_command_lines_import_typer_or_the_command_line(path: Path) -> None:
    modules = {f"{module}.{name}" for module, name in imports(path)} | packages(path)
    assert not {name for name in modules if name.startswith(("typer", "deploy.cli"))}
