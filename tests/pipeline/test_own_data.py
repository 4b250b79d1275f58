"""The whole chain on a data set of one's own, by the command line, from training to the report."""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from roads import COLORS, NAMES, write_roads

from deploy import models
from deploy.calibration import IGNORE_LABEL, PALETTE
from deploy.cli import main
from deploy.graph.metadata import read_metadata
from deploy.graph.reading import read_graph
from deploy.predict.contact_sheet import contact_sheet
from deploy.validate.classes import read_class_names

VARIANT = models.DEFAULT_VARIANT


def run(*arguments: str | Path) -> int:
    """Run the console script; return its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("VOC_ROOT", raising=False)
        patch.setattr(sys, "argv", ["deploy", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            main()
    return int(exit_.value.code or 0)


@dataclasses.dataclass(frozen=True)
class Chain:
    """What the chain left behind."""

    roads: Path
    weights: Path
    out: Path

    @property
    def options(self) -> tuple[str | Path, ...]:
        return ("--weights", self.weights, "--out", self.out)


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """Train, export, calibrate, quantize under a gate, validate, report."""
    folder = tmp_path_factory.mktemp("chain")
    roads = write_roads(folder / "roads")
    done = Chain(roads, folder / "run" / "weights.safetensors", folder / "out")
    small = ("--input-size", "64")
    training = ("--steps", "2", "--batch-size", "2", "--crop", "32", "--threads", "1")
    before = torch.get_num_threads()
    assert run("train", VARIANT, "--data", roads, *training, *small, "--out", folder / "run") == 0
    torch.set_num_threads(before)
    assert run("export", VARIANT, "--data", roads, *small, *done.options) == 0
    gate = ("--max-drop", "100", "--tuning-images", "2", "--images", "3")
    assert run("quantize", VARIANT, "--voc-root", roads, *gate, *done.options) == 0
    assert run("validate", VARIANT, "--voc-root", roads, *done.options) == 0
    assert run("report", "--out", done.out) == 0
    return done


def test_every_graph_of_the_chain_names_the_classes(chain: Chain) -> None:
    for name in ("fp32", "fp16", "int8"):
        model = read_graph(chain.out / VARIANT / f"{name}.onnx")
        assert read_class_names(model) == NAMES
        assert read_metadata(model)["classes"] == "ground,road,car,sky"


def test_results_of_the_chain_are_of_the_data_set(chain: Chain) -> None:
    content = json.loads((chain.out / VARIANT / "validation.json").read_text())
    assert content["dataset"]["name"] == "roads"
    assert content["dataset"]["classes"] == 4
    for figures in content["results"].values():
        assert tuple(figures["per_class_iou"]) == NAMES
        assert figures["miou"] is not None
    assert content["gate"]["held"]
    assert content["weights"]["source"] == "file"


def test_the_report_of_the_chain_has_no_figures_of_voc(chain: Chain) -> None:
    folder = chain.out / "report"
    (variant,) = json.loads((folder / "report.json").read_text())["variants"].values()
    assert variant["published"] == dict.fromkeys(("miou", "vacc_fp16_miou", "vacc_int8_miou"))
    for name in ("report.md", "report.html"):
        text = (folder / name).read_text()
        assert "3 images of roads val" in text
        assert "VOC" not in text
        assert "ublished" not in text
    assert all(name in text for name in NAMES)  # of the page, with a table of the classes


def test_predictions_of_the_chain_name_the_classes(
    chain: Chain, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = chain.roads / "images" / "val_*.png"
    graph = chain.out / VARIANT / "int8.onnx"
    assert run("predict", graph, images, "--out", tmp_path, "--json") == 0
    found = json.loads(capsys.readouterr().out)["images"]
    assert len(found) == 3
    assert all(image["shares"].keys() <= set(NAMES) for image in found)
    checkpoint = ("predict", chain.weights, images, "--variant", VARIANT, "--out", tmp_path / "pt")
    assert run(*checkpoint, "--input-size", "64", "--json") == 0
    found = json.loads(capsys.readouterr().out)["images"]
    assert all(image["shares"].keys() <= set(NAMES) for image in found)


def test_the_chains_graphs_are_refused_on_other_data(
    chain: Chain, reordered: Path, voc_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("validate", VARIANT, "--voc-root", reordered, *chain.options) == 1
    assert "the same classes in another order" in capsys.readouterr().err
    assert run("validate", VARIANT, "--voc-root", voc_root, *chain.options) == 1
    assert "has 4 classes, but data set VOC2012 has 21" in capsys.readouterr().err
    assert run("validate", VARIANT, "--voc-root", chain.roads, "--out", chain.out) == 1
    assert "has 21 classes, but the data has 4: pass --weights" in capsys.readouterr().err


def test_export_of_a_checkpoint_of_another_count_names_both(
    chain: Chain, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("export", VARIANT, "--data", chain.roads, "--out", tmp_path) == 1
    assert "has 21 classes, but the data has 4" in capsys.readouterr().err
    assert run("export-all", VARIANT, "--data", chain.roads, "--out", tmp_path) == 1
    assert "has 21 classes, but the data has 4" in capsys.readouterr().err


def test_the_contact_sheet_has_the_data_sets_colours(chain: Chain, tmp_path: Path) -> None:
    out = tmp_path / "sheet.png"
    contact_sheet(weights=chain.weights, voc_root=chain.roads, images=1, out=out)
    with Image.open(out) as sheet:
        truth = np.asarray(sheet)[4:204, 208:408].reshape(-1, 3)
    shown = {tuple(color) for color in np.unique(truth, axis=0).tolist()}
    assert shown == {*COLORS, tuple(PALETTE[IGNORE_LABEL].tolist())}
