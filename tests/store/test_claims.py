"""Two files of one name never take each other's results."""

from pathlib import Path

import onnx
import pytest
from exporters import base, build

import deploy
from deploy.calibration.scenes import write_scenes
from deploy.errors import DeployError


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    return write_scenes(tmp_path / "scenes", train=2, val=1, seed=2)


def theirs(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(build(*base()), path)
    return path


def quantize(path: Path | list[Path], scenes: Path, out: Path) -> list[Path]:
    written = deploy.quantize(path, fp16=False, recipe="plain", images=2, voc_root=scenes, out=out)
    return [graph.path for graph in written]


def test_two_files_of_one_stem_in_one_command_are_refused(scenes: Path, tmp_path: Path) -> None:
    paths = [theirs(tmp_path / name / "end2end.onnx") for name in ("one", "two")]
    with pytest.raises(DeployError, match=r"one/end2end\.onnx and .*two/end2end\.onnx would both"):
        quantize(paths, scenes, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_second_file_of_that_stem_is_refused_while_the_first_is_there(
    scenes: Path, tmp_path: Path
) -> None:
    one, two = (theirs(tmp_path / name / "end2end.onnx") for name in ("one", "two"))
    (made,) = quantize(one, scenes, tmp_path / "out")
    before = made.read_bytes()
    with pytest.raises(DeployError, match=r"holds the results of .*one/end2end\.onnx: rename"):
        quantize(two, scenes, tmp_path / "out")
    with pytest.raises(DeployError, match="holds the results of"):
        deploy.calibrate(two, images=2, voc_root=scenes, out=tmp_path / "out")
    assert made.read_bytes() == before
    theirs(one)  # exported anew: it is its own folder
    assert quantize(one, scenes, tmp_path / "out") == [made]
    one.unlink()
    assert quantize(two, scenes, tmp_path / "out") == [made]


def test_a_file_of_a_variants_name_is_refused(scenes: Path, tmp_path: Path) -> None:
    path = theirs(tmp_path / "rf-lw-mbv2.onnx")
    with pytest.raises(DeployError, match=r"has the name of a variant.*rename the file"):
        quantize(path, scenes, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_validate_tells_files_of_one_stem_apart(scenes: Path, tmp_path: Path) -> None:
    paths = [theirs(tmp_path / name / "end2end.onnx") for name in ("one", "two")]
    found = deploy.validate(paths, voc_root=scenes)
    assert [result["name"] for result in found] == [str(path) for path in paths]
