import sys
from pathlib import Path

import numpy as np
import pytest

from deploy.bench.standin_tvm import compare, quantized_by_tvm
from deploy.errors import DeployError


def test_agreement_and_sqnr_are_over_all_images() -> None:
    reference = [np.array([[[1.0, 0.0]], [[0.0, 1.0]]], np.float32)] * 2  # (C, h, w): labels 0, 1
    swapped = reference[0][::-1]
    found = compare(reference, [reference[0], swapped])
    # of 4 values squared that sum to 4 the second image's 4 differ by 1: 10 log10(4 / 4)
    assert found == {"agreement_percent": 50.0, "sqnr_db": pytest.approx(0.0)}


def test_python_without_tvm_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        DeployError, match=r"^TVM failed on graph\.onnx with exit code 1, see above"
    ):
        quantized_by_tvm(Path(sys.executable), Path("graph.onnx"), tmp_path)
