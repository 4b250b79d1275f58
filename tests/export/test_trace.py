import numpy as np
import onnx
import pytest
import torch
from torch import nn

from deploy import models
from deploy.errors import ExportError
from deploy.export.simplify import simplify_onnx
from deploy.export.trace import compare_with_torch, export_onnx, prove_equal
from deploy.graph.graph import Graph, count_ops, opset


class Branches(nn.Module):
    """Two convolutions with batch normalization, and a sum that could be simplified away."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4))
        self.second = nn.Conv2d(4, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.first(x))
        output: torch.Tensor = self.second(hidden)
        return output


@pytest.fixture
def branches() -> Branches:
    torch.manual_seed(0)
    module = Branches().eval()
    nn.init.uniform_(module.first[1].running_var, 0.5, 2)
    nn.init.normal_(module.first[1].running_mean)
    return module


def test_export_onnx_folds_batch_normalization_and_matches_torch(branches: Branches) -> None:
    model = export_onnx(branches, (16, 24))
    assert count_ops(model) == {"Conv": 2, "Relu": 1}
    assert opset(model) >= 17
    assert Graph(model).input_size == (16, 24)
    assert [v.name for v in model.graph.output] == ["logits"]
    difference = compare_with_torch(model, branches, (16, 24))
    assert difference.relative < 1e-5
    assert difference.mean <= difference.maximum


def test_export_onnx_names_nodes_after_their_parameters(branches: Branches) -> None:
    model = export_onnx(branches, (16, 16))
    assert [n.name for n in model.graph.node if n.op_type == "Conv"] == ["first.0", "second"]


def test_export_onnx_carries_no_path_of_this_machine(branches: Branches) -> None:
    assert b"/" not in b"".join(
        entry.value.encode()
        for node in export_onnx(branches, (16, 16)).graph.node
        for entry in node.metadata_props
    )


def test_compare_with_torch_other_parameters_are_refused(branches: Branches) -> None:
    model = export_onnx(branches, (16, 16))
    with torch.no_grad():
        branches.second.weight.mul_(1.01)
    with pytest.raises(ExportError, match=r"differ by max .* at most 0\.001"):
        compare_with_torch(model, branches, (16, 16))


@pytest.mark.parametrize("spoiled", [np.nan, np.inf, 10.0])
def test_prove_equal_spoiled_value_is_refused(spoiled: float) -> None:
    expected = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 2, 2)
    found = expected.copy()
    found[0, 0, 0] = spoiled
    with pytest.raises(ExportError), np.errstate(invalid="ignore"):
        prove_equal(expected, found, "two")


def test_prove_equal_other_shapes_are_refused() -> None:
    with pytest.raises(ExportError, match="shape"):
        prove_equal(np.zeros((1, 2, 2), np.float32), np.zeros((1, 2, 3), np.float32), "two")


def test_simplify_onnx_removes_nodes_and_proves_equality(branches: Branches) -> None:
    model = export_onnx(branches, (16, 16))
    identity = onnx.helper.make_node("Identity", ["logits_inner"], ["logits"], name="identity")
    model.graph.node[-1].output[0] = "logits_inner"
    model.graph.node.append(identity)
    model.metadata_props.add(key="variant", value="branches")
    result = simplify_onnx(model)
    assert result.ops_before["Identity"] == 1
    assert "Identity" not in result.ops_after
    assert result.difference.relative < 1e-5
    assert [(e.key, e.value) for e in result.model.metadata_props] == [("variant", "branches")]


@pytest.mark.slow
@pytest.mark.parametrize(
    "variant",
    [
        "rf-lw-mbv2",
        "rf-lw50",
        *(pytest.param(name, marks=pytest.mark.long) for name in ("rf50", "rf101", "rf152")),
    ],
)
def test_export_onnx_of_a_variant_is_made_of_five_operators(variant: str) -> None:
    module, _ = models.build_with_weights(variant)
    result = simplify_onnx(export_onnx(module, (64, 96)))
    activation = "Clip" if variant == "rf-lw-mbv2" else "Relu"
    assert set(result.ops_after) == {"Conv", activation, "Add", "MaxPool", "Resize"}
    assert compare_with_torch(result.model, module, (64, 96)).relative < 1e-4
