"""Sophgo's TPUs: BM1684X, BM1688 and CV186X, by tpu-mlir."""

from deploy.calibration.preprocess import MEAN, STD
from deploy.errors import DeployError
from deploy.graph.carried import carried, with_old_ir
from deploy.graph.graph import Graph
from deploy.graph.profile import Bias, Profile
from deploy.lint.rules import CHANGED_SCALE, COMMON, FLOAT_BIAS, FLOAT_RESULT, WEIGHT_PER_CHANNEL
from deploy.runtimes import sophgo
from deploy.runtimes.runner import Runtime
from deploy.runtimes.sophgo_files import calibration_table
from deploy.targets.accelerator import Accelerator, Bundled, Files, Part, Toolbox
from deploy.targets.render import render
from deploy.targets.vendors import VendorQuantizer, table_of

START = (
    "`sh build.sh CHIP`, with tpu-mlir 1.30.2 (`deploy toolchain install sophgo`), makes "
    "CHIP.bmodel of model.onnx in {}, runs it on golden.npz's image in the C-model and writes "
    "output.npy. CHIP is {}; {}"
)


def bundle(bundled: Bundled) -> Part:
    """Return the float graph, its calibration table, and what makes a chip's file of the two.

    That file is there, too, for each chip, where the toolchain is installed.

    Raises:
        DeployError: a chip is not known, or the compiler fails.
        GraphError: a tensor has no range.
    """
    check_plain(bundled, "Sophgo's compiler")
    given = carried(bundled.model)
    table = calibration_table(given) if given.ranges else None
    precision = sophgo.precision_of(given, table)
    height, width = Graph(given.model).input_size
    files: Files = {
        "model.onnx": with_old_ir(given.model, sophgo.IR_VERSION).SerializeToString(
            deterministic=True
        ),
        "build.sh": render(
            "deploy.targets",
            "sophgo.sh.j2",
            name=bundled.title,
            height=height,
            width=width,
            mean=",".join(f"{255 * value:.10g}" for value in MEAN),
            scale=",".join(f"{1 / (255 * value):.10g}" for value in STD),
            precision=precision,
            chips=sophgo.CHIPS,
            input=bundled.description["input"]["name"],
        ),
    }
    if table is not None:
        files["calibration_table"] = table
    compiled, note = "none is compiled yet", "it is not compiled: the toolchain was not installed"
    if is_installed():
        files |= {
            f"{chip}.bmodel": sophgo.compile_for(bundled.model, chip) for chip in bundled.socs
        }
        compiled, note = f"here for {', '.join(bundled.socs)}", "no board was at hand"
    return Part(
        files=files,
        start=START.format(precision, ", ".join(sophgo.CHIPS), compiled),
        check="python3 check.py output.npy",
        note=note,
    )


def check_plain(bundled: Bundled, compiler: str) -> None:
    """Refuse embedded preprocessing and other heads, which simulators here do not give."""
    if bundled.description["input"]["type"] != "float32" or (
        bundled.description["output"]["head"] == "labels"
    ):
        raise DeployError(
            f"{compiler} takes float images and gives logits here: leave out --head labels and "
            "--embed-preprocessing"
        )


def is_installed() -> bool:
    """Say whether the toolchain is installed, by this version."""
    try:
        sophgo.command()
    except DeployError:
        return False
    return True


SOPHGO = Accelerator(
    name="sophgo",
    runtime="Sophgo's TPU by tpu-mlir",
    source="tpu-mlir, 'Calibration' and 'User Interface'; what tpu-mlir 1.30.2 makes of graphs",
    profile=Profile(name="sophgo", bias=Bias.FLOAT),
    rules=(*COMMON, WEIGHT_PER_CHANNEL, FLOAT_BIAS, FLOAT_RESULT, CHANGED_SCALE),
    chips=dict.fromkeys(sophgo.CHIPS, ()),
    executed_by=Runtime.SOPHGO,
    vendor=VendorQuantizer(
        label="tpu-mlir, KL divergence, 5 images to tune",
        quantize=table_of(sophgo.calibrate),
        installed=sophgo.command,
    ),
    toolchains={
        "sophgo": Toolbox(
            title="Sophgo TPU (tpu-mlir)", write=bundle, default_soc=sophgo.DEFAULT_CHIP
        )
    },
)
