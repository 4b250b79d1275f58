"""Where things are: ``<out>/<name>/{fp32,fp16,int8}.onnx`` and what stands beside them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from deploy.errors import DeployError
from deploy.models.variants import VARIANTS

SCHEMA = 5  # of validation.json and report.json (docs/formats.md)
DEFAULT_RUNTIME = "onnxruntime"
DEFAULT_OUT = Path("artifacts")


@dataclass(frozen=True, kw_only=True)
class Network:
    """A variant, or an ONNX file that somebody brought, and the folder of its artifacts."""

    name: str
    folder: Path
    given: Path | None = None  # the file, if it is not one of this folder's own

    @property
    def is_variant(self) -> bool:
        """Whether the target is one of our networks, so that torch can be its baseline."""
        return self.given is None

    @property
    def fp32(self) -> Path:
        """The float graph that quantization starts from."""
        return self.given or self.folder / "fp32.onnx"

    def graph(self, name: str) -> Path:
        """Path of a graph, such as fp32 or int8-tensorrt (``GRAPHS`` of deploy/targets)."""
        return self.fp32 if name == "fp32" else self.folder / f"{name}.onnx"

    def handed_over(self, accelerator: str) -> Path:
        """Folder of what an accelerator is given that quantizes by itself."""
        return self.folder / accelerator

    @property
    def calibration(self) -> Path:
        """Path of the statistics."""
        return self.folder / "calibration.json"

    @property
    def equalized_calibration(self) -> Path:
        """Path of the statistics of the equalized graph."""
        return self.folder / "calibration-equalized.json"

    def calibration_part(self, part: int, parts: int) -> Path:
        """Path of the statistics of one part of the images, 1 to ``parts``."""
        return self.folder / f"calibration-{part}-of-{parts}.json"

    @property
    def gate(self) -> Path:
        """Path of what the accuracy gate tried and found."""
        return self.folder / "gate.json"

    @property
    def validation(self) -> Path:
        """Path of the accuracy results."""
        return self.folder / "validation.json"

    def validation_in(self, runtime: str, soc: str | None) -> Path:
        """Path of the accuracy results in a runtime; in the default one, those of the report."""
        if runtime == DEFAULT_RUNTIME:
            return self.validation
        return self.folder / f"{'-'.join(filter(None, ('validation', runtime, soc)))}.json"

    @property
    def measured_elsewhere(self) -> list[Path]:
        """Paths of the accuracy results in other runtimes than the default one."""
        return sorted(self.folder.glob("validation-*.json"))

    @property
    def examples(self) -> Path:
        """Folder of the pictures that the accuracy results name."""
        return self.folder / "examples"


def resolve_network(name: str, out: Path) -> Network:
    """Return the target that a user names: a variant's id, or the path of an ONNX file.

    Raises:
        DeployError: it is neither.
    """
    if name in VARIANTS:
        return Network(name=name, folder=out / name)
    path = Path(name)
    if path.suffix != ".onnx":
        raise DeployError(
            f"{name!r} is neither a variant ({', '.join(VARIANTS)}) nor the path of an .onnx file"
        )
    if (
        path.parent.name in VARIANTS
        and path.resolve() == (out / path.parent.name / "fp32.onnx").resolve()
    ):
        return Network(name=path.parent.name, folder=out / path.parent.name)
    name = str(path) if path.stem in VARIANTS else path.stem
    return Network(name=name, folder=out / path.stem, given=path)


def resolve_networks(names: Sequence[str], out: Path) -> list[Network]:
    """Return the targets that a user names; files of one name are told apart by their paths.

    Raises:
        DeployError: as :func:`resolve_network`.
    """
    targets = [resolve_network(name, out) for name in dict.fromkeys(names)]
    folders = Counter(target.folder for target in targets)
    return [
        replace(target, name=str(target.given))
        if target.given is not None and folders[target.folder] > 1
        else target
        for target in targets
    ]


def exported_variants(out: Path) -> list[str]:
    """Return the ids of the variants that have an FP32 graph in ``out``."""
    return [name for name in VARIANTS if (out / name / "fp32.onnx").is_file()]
