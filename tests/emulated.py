"""What test_emulated.py compares between processors: python emulated.py FOLDER RESULT [small]

Writes the logits of every ``FOLDER/small/*.onnx`` in exact sessions to RESULT.npz, those with
default options as well; whether the kernels of each runtime saturate, and what ``deploy validate``
gives for the artifacts in ``FOLDER/artifacts`` on ``FOLDER/scenes``, to RESULT.json; with "small"
null in its place.
"""

import contextlib
import io
import json
import sys
from pathlib import Path

import numpy as np

from deploy.cli import main
from deploy.runtimes.openvino import OpenVinoRunner, openvino_saturates
from deploy.runtimes.sessions import kernels_saturate, open_session

IMAGE = np.random.default_rng(0).standard_normal((1, 3, 16, 16), dtype=np.float32)


def write(folder: Path, result: Path, *, is_small: bool) -> None:
    """Write both files."""
    logits = {}
    for path in sorted((folder / "small").glob("*.onnx")):
        for exact in (True, False):
            kind = "exact" if exact else "default"
            (found,) = open_session(path, 1, exact=exact).run(None, {"image": IMAGE})
            logits[f"{path.stem} {kind}"] = found
            if path.stem == "openvino":
                logits[f"{path.stem} {kind} openvino"] = OpenVinoRunner(path, exact=exact)(IMAGE)
    np.savez(result.with_suffix(".npz"), **logits)
    saturate = {"onnxruntime": kernels_saturate(), "openvino": openvino_saturates()}
    content = {"saturate": saturate, "validation": None if is_small else validate(folder)}
    result.with_suffix(".json").write_text(json.dumps(content))


def validate(folder: Path) -> object:
    """Return what the command prints."""
    arguments = ["--data", str(folder / "scenes"), "--out", str(folder / "artifacts")]
    sys.argv = ["deploy", "validate", *arguments, "--json", "-q", "--force"]
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        main()
    content: object = json.loads(text.getvalue())
    return content


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]), is_small=sys.argv[3:] == ["small"])
