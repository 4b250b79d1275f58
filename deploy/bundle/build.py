"""Gathering a bundle: graph → interface → golden pair → the toolchain's files → README → checksums.

Like deploy/pipeline, this reads and writes artifacts.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from deploy.bundle.contents import Contents, common_files, describe, make_golden
from deploy.bundle.readme import readme
from deploy.errors import DeployError
from deploy.export.heads import check_plain, refuse_wrapped
from deploy.export.interface import Interface
from deploy.graph.graph import Graph
from deploy.graph.metadata import read_fit, read_metadata
from deploy.graph.reading import naming, read_graph
from deploy.progress import Progress, SilentProgress
from deploy.runtimes.litert_tape import Borders
from deploy.store.artifacts import DEFAULT_OUT, Network, resolve_network
from deploy.store.claims import refuse_foreign
from deploy.store.files import write_folder_whole
from deploy.store.locks import hold
from deploy.targets import TOOLCHAINS, Toolchain, int8_name
from deploy.targets.accelerator import Accelerator, Bundled, Files, Precision
from deploy.validate.results import read_results

SUMS = "SHA256SUMS"


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """What was written."""

    path: Path  # of the folder
    files: list[str]
    size_bytes: int
    check: str  # the command that compares the model with the golden pair
    note: str | None  # what is not as one would expect


def bundle(
    target: str,
    toolchain: Toolchain,
    *,
    precision: Precision = Precision.INT8,
    interface: Interface | None = None,
    socs: Sequence[str] = (),
    borders: Borders = Borders.FLOAT,
    folder: Path | None = None,
    out: Path = DEFAULT_OUT,
    progress: Progress | None = None,
) -> Bundle:
    """Write a folder with all that an integrator needs of one graph, whole or not at all.

    Args:
        target: a variant's id or the path of an ONNX file, quantized before.
        toolchain: what the folder is for.
        precision: of the graph; INT8 is the one made for the toolchain.
        interface: what the model shall take and give.
        socs: chips to compile for, where the toolchain does that here; by default a common one.
        borders: what an INT8 model takes and gives, where the toolchain has the choice.
        folder: where it goes, by default ``<out>/<name>/bundle-<toolchain>-<precision>``. A bundle
            that is there is replaced.
        out: the folder of the artifacts.
        progress: where to show what is going on.

    Raises:
        DeployError: a graph is missing (the message says what makes it), it cannot be bundled, or
            the folder holds something else than a bundle or cannot be written.
    """
    found, interface = resolve_network(target, out), interface or Interface()
    refuse_foreign(found)
    name = f"bundle-{toolchain}-{precision}{interface.suffix}"
    name += "" if borders is Borders.FLOAT else f"-{borders}"
    folder = folder or found.folder / name
    _refuse_other_folder(folder)
    progress = progress or SilentProgress()
    accelerator, toolbox = TOOLCHAINS[toolchain]
    if socs and toolbox.default_soc is None:
        raise DeployError(f"{toolbox.title} is not compiled for single chips here: leave out --soc")
    if borders is not Borders.FLOAT and not toolbox.has_borders:
        raise DeployError(f"{toolbox.title} has no choice of borders: leave out --borders")
    chosen = tuple(dict.fromkeys(socs)) or tuple(filter(None, [toolbox.default_soc]))
    with hold(found.folder, progress), progress.step(f"bundle {found.name}"):
        path = _find_graph(found, accelerator, precision, interface)
        plain = read_graph(path)
        refuse_wrapped(plain, path, "bundle the plain graph; --head and --embed-preprocessing wrap")
        contents = Contents(
            name=found.name,
            precision=precision,
            path=path,
            plain=plain,
            fit=read_fit(read_metadata(plain), path),
            interface=interface,
        )
        with naming(path):
            check_plain(Graph(plain))
            description, golden = describe(contents), make_golden(contents)
        part = toolbox.write(
            Bundled(
                title=contents.title,
                precision=precision,
                model=contents.model,
                description=description,
                golden=golden,
                folder=path.parent,
                socs=chosen,
                borders=borders,
            )
        )
        description = dict(part.description or description)
        files = common_files(contents, description, dict(part.golden or golden)) | part.files
        files["check.py"] = (resources.files("deploy.bundle") / "check.py").read_bytes()
        validated = [found.validation] if found.validation.is_file() else []
        results = [read_results(found, p) for p in (*found.measured_elsewhere, *validated)]
        files["README.md"] = readme(contents, toolbox.title, description, part, results)
        files[SUMS] = _checksums(files)
        size_bytes = write_folder_whole(folder, files)
    return Bundle(
        path=folder, files=sorted(files), size_bytes=size_bytes, check=part.check, note=part.note
    )


def _find_graph(
    target: Network, accelerator: Accelerator, precision: Precision, interface: Interface
) -> Path:
    """Return the plain graph to bundle; raises DeployError with what makes it if it is missing."""
    name = str(target.given or target.name)
    if accelerator.profile is None:
        made = accelerator.hand_over.precisions if accelerator.hand_over else ()
        if precision not in made or not interface.is_plain:
            precisions = " or ".join(each.upper() for each in made)
            raise DeployError(
                f"{accelerator.runtime} makes {precisions} of the plain float graph: leave out "
                "other options"
            )
        path = target.handed_over(accelerator.folder(precision)) / "fp32.onnx"
        command = f"deploy quantize {name} --{precision} --target {accelerator.name}"
    elif precision is Precision.INT8:
        path = target.graph(int8_name(accelerator.name))
        command = f"deploy quantize {name} --int8 --target {accelerator.name}"
    else:
        path = target.graph(precision.value)
        fp32 = precision is Precision.FP32
        command = f"deploy export {name}" if fp32 else f"deploy quantize {name} --fp16"
    if not path.is_file():
        raise DeployError(f"no graph at {path}: run '{command}'")
    return path


def _refuse_other_folder(path: Path) -> None:
    """Refuse to replace a folder that is no bundle."""
    if path.is_dir() and any(path.iterdir()) and not (path / SUMS).is_file():
        raise DeployError(f"{path} is not empty and no bundle: name a new folder")


def _checksums(files: Files) -> str:
    """Return the list that ``sha256sum -c`` reads."""
    contents = {n: c.encode() if isinstance(c, str) else c for n, c in sorted(files.items())}
    return "".join(f"{hashlib.sha256(c).hexdigest()}  {name}\n" for name, c in contents.items())
