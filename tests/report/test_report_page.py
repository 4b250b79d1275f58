"""The report of the real pipeline: its JSON against the schema, its page in a browser."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from conftest import run_main
from PIL import Image
from results import SCHEMA, cells

import deploy
from deploy import models
from deploy.calibration.scenes import write_scenes
from deploy.errors import ReportError
from deploy.quantize.recipe import RecipeName
from deploy.store.files import write_whole

pytestmark = pytest.mark.slow
VARIANT = models.DEFAULT_VARIANT
PLAIN = RecipeName.PLAIN
SIZE = (64, 64)
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
PAPER = {"light": (253, 253, 252), "dark": (20, 23, 26)}
SCHEMES = {"dark": 0, "light": 1}  # Blink's preferredColorScheme
PROBE = """<script>
addEventListener("load", () => {
  const images = [...document.images], plots = [...document.querySelectorAll("svg")];
  parent.postMessage({
    inner: innerWidth,
    scroll: document.documentElement.scrollWidth,
    images: images.length,
    loaded: images.filter(i => i.complete && i.naturalWidth > 0).length,
    plots: plots.map(p => Math.min(p.getBBox().width, p.getBBox().height)),
    fetched: performance.getEntriesByType("resource").map(e => e.name.slice(0, 60)),
    beyond: [...document.querySelectorAll("main > *, header, h1, h2, p, dl")]
      .filter(e => e.getBoundingClientRect().right > innerWidth + 0.5).length,
  }, "*");
});
</script>"""
# A browser's own window has a least width, a frame in it has none.
FRAME = """<!doctype html><script>
addEventListener("message", event => {
  document.getElementById("probe").textContent = JSON.stringify(event.data);
});
</script><pre id="probe"></pre>
<iframe srcdoc="%s" style="width: %dpx; height: 900px; border: 0"></iframe>"""


@pytest.fixture(scope="module")
def voc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("scenes") / "data", train=2, val=5, seed=1)


@pytest.fixture(scope="module")
def artifacts(voc: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return artifacts of the shipped network, also for a second target, and of a random one."""
    out = tmp_path_factory.mktemp("artifacts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_HOME", str(out / "no-torch"))
        for name in (VARIANT, "rf-lw-nasnet"):
            deploy.export(name, input_size=SIZE, out=out)
            deploy.quantize([name], fp16=False, images=2, recipe=PLAIN, voc_root=voc, out=out)
        deploy.quantize([VARIANT], int8=False, fp16_sqnr=0, images=2, voc_root=voc, out=out)
        deploy.quantize(
            [VARIANT], fp16=False, target="tensorrt", images=2, recipe=PLAIN, voc_root=voc, out=out
        )
        deploy.validate(voc_root=voc, out=out)
    deploy.report(out=out)
    return out


@pytest.fixture
def copied(artifacts: Path, tmp_path: Path) -> Path:
    """Return a copy of the results that a test may change; reports need no graphs."""
    ignored = shutil.ignore_patterns("*.onnx", "calibration.json", "report")
    return Path(shutil.copytree(artifacts, tmp_path / "copied", ignore=ignored))


def read(artifacts: Path) -> Any:
    return json.loads((artifacts / "report" / "report.json").read_text(encoding="utf-8"))


def test_report_of_the_real_pipeline_is_as_the_schema_says(artifacts: Path) -> None:
    content = read(artifacts)
    jsonschema.validate(content, SCHEMA)
    trained, random = (content["variants"][name] for name in (VARIANT, "rf-lw-nasnet"))
    assert list(trained["results"]) == ["torch", "fp32", "fp16", "int8", "int8-tensorrt"]
    assert trained["layers"]["images"] == 4
    assert len(trained["layers"]["layers"]) == 109  # 78 convolutions and 31 sums
    assert all(10 < layer["sqnr_db"] < 70 for layer in trained["layers"]["layers"])
    assert random["examples"] is None
    assert random["results"]["int8"]["miou"] is None
    assert len(random["layers"]["layers"]) > 100


def test_the_last_layers_sqnr_is_that_of_the_logits(artifacts: Path) -> None:
    variant = read(artifacts)["variants"][VARIANT]
    last = variant["layers"]["layers"][-1]
    assert last["tensor"] == "logits"
    # of four images here, of five there
    assert last["sqnr_db"] == pytest.approx(variant["results"]["int8"]["sqnr_db"], abs=1.5)


def test_examples_are_the_images_that_differ_most(artifacts: Path) -> None:
    variant = read(artifacts)["variants"][VARIANT]
    shares = [image["disagreement"] for image in variant["examples"]["images"]]
    assert len(shares) == 4
    assert shares == sorted(shares, reverse=True)
    everywhere = 1 - variant["results"]["int8"]["agreement"]
    assert shares[-1] <= everywhere + 1e-9 <= shares[0] + 1e-9  # the mean of five lies between
    assert sum(shares) <= 5 * everywhere + 1e-9
    folder = artifacts / VARIANT / "examples"
    assert len(list(folder.iterdir())) == 4 * 5
    assert not (artifacts / "rf-lw-nasnet" / "examples").exists()


def test_report_needs_no_graphs_and_no_data(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOC_ROOT", "/nonexistent")
    deploy.report(out=copied)
    page = (copied / "report" / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/") == 4 * 5
    assert len(page) < 1_000_000


def test_pictures_of_another_validation_are_refused(copied: Path) -> None:
    picture = copied / VARIANT / "examples" / "1-int8.png"
    write_whole(picture, b"another")
    with pytest.raises(ReportError, match=r"1-int8.png is not the picture .*run 'deploy validate"):
        deploy.report(out=copied)
    picture.unlink()
    with pytest.raises(ReportError, match=r"1-int8.png cannot be read"):
        deploy.report(out=copied)


def test_validate_again_without_examples_takes_the_old_ones_away(
    artifacts: Path, voc: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "out" / VARIANT
    shutil.copytree(artifacts / VARIANT, folder)
    for graph in folder.glob("int8*.onnx"):
        graph.unlink()
    (result,) = deploy.validate([VARIANT], limit=1, voc_root=voc, out=tmp_path / "out")
    assert result["examples"] is None
    assert result["layers"] is None
    assert not (folder / "examples").exists()


def test_results_without_their_pictures_are_measured_anew(
    artifacts: Path, voc: Path, tmp_path: Path
) -> None:
    shutil.copytree(artifacts / VARIANT, tmp_path / VARIANT)
    picture = tmp_path / VARIANT / "examples" / "2-image.jpg"
    before = picture.stat().st_mtime_ns
    deploy.validate([VARIANT], voc_root=voc, out=tmp_path)
    assert picture.stat().st_mtime_ns == before  # all as it was
    picture.unlink()
    deploy.validate([VARIANT], voc_root=voc, out=tmp_path)
    deploy.report(out=tmp_path)


def test_compare_on_the_command_line(
    artifacts: Path,
    copied: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    old = artifacts / "report" / "report.json"
    command = ["report", "--out", str(copied), "--compare"]
    code, out, _ = run_main([*command, str(old)], monkeypatch, capsys)
    assert (code, "no regression beyond 0.5 points" in out) == (0, True)
    path = copied / VARIANT / "validation.json"
    result = json.loads(path.read_text())
    before = result["results"]["int8"]["miou"]
    result["results"]["int8"]["miou"] = before - 0.02
    path.write_text(json.dumps(result))
    code, out, err = run_main([*command, str(old)], monkeypatch, capsys)
    assert (code, err) == (1, "")
    assert f"REGRESSION: {VARIANT} int8: mIoU fell by 2.00 points" in out
    assert max(map(len, out.splitlines())) <= 120
    code, out, _ = run_main([*command, str(old), "--json"], monkeypatch, capsys)
    content = json.loads(out)
    assert (code, len(content["comparison"]["regressions"])) == (1, 1)
    jsonschema.validate(content, SCHEMA)
    assert content == read(copied)
    assert run_main([*command, str(old), "--tolerance", "2.1"], monkeypatch, capsys)[0] == 0
    assert "mIoU fell" not in cells((copied / "report" / "report.html").read_text())


def test_compare_with_what_is_no_report_is_one_line_and_changes_nothing(
    copied: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old = copied / "old.json"
    old.write_text("{}")
    command = ["report", "--out", str(copied), "--compare", str(old)]
    code, out, err = run_main(command, monkeypatch, capsys)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "old.json is no report: pass the report.json of an earlier run" in err
    assert not (copied / "report").exists()
    for tolerance in ("-1", "nan"):
        assert run_main([*command, "--tolerance", tolerance], monkeypatch, capsys)[0] == 2


def test_page_refers_to_nothing_outside_itself(artifacts: Path) -> None:
    page = (artifacts / "report" / "report.html").read_text(encoding="utf-8")
    without_names = re.sub(r'xmlns(:\w+)?="[^"]*"', "", page)
    assert not re.findall(r"https?:|//[a-z]", re.sub(r"base64,[^\"]*", "", without_names))
    for attribute in re.findall(r'\b(?:src|href)="([^"]{0,12})', page):
        assert attribute.startswith(("data:", "#"))
    assert "<script" not in page


def browse(page: Path, folder: Path, width: int, scheme: str, *arguments: str) -> str:
    """Open a page in a browser without a window, and return what it prints."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed")
    flags = [
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *("--hide-scrollbars", "--host-resolver-rules=MAP * ~NOTFOUND"),
        *(f"--user-data-dir={folder / 'profile'}", f"--window-size={width},900"),
        f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}",
    ]
    command = [browser, *flags, *arguments, page.as_uri()]
    return subprocess.run(command, check=True, capture_output=True, timeout=120).stdout.decode()


@pytest.mark.parametrize("width", [1280, 420])
def test_page_fits_and_loads_in_a_browser(artifacts: Path, tmp_path: Path, width: int) -> None:
    content = (artifacts / "report" / "report.html").read_text(encoding="utf-8")
    probed = html.escape(content.replace("</body>", f"{PROBE}</body>"))
    page = tmp_path / "frame.html"
    page.write_text(FRAME % (probed, width), encoding="utf-8")
    dom = browse(page, tmp_path, 1400, "light", "--dump-dom")
    found = re.search(r'<pre id="probe">(.+?)</pre>', dom, re.DOTALL)
    assert found is not None
    seen = json.loads(html.unescape(found[1]))
    assert seen["inner"] == width
    assert seen["scroll"] <= width  # nothing but tables and plots scrolls, each in its box
    assert seen["beyond"] == 0
    assert seen["images"] == seen["loaded"] == 4 * 5
    assert len(seen["plots"]) == 3  # the classes of one variant, the layers of both
    assert min(seen["plots"]) > 50
    assert [name for name in seen["fetched"] if not name.startswith("data:")] == []


@pytest.mark.parametrize("scheme", SCHEMES)
def test_page_follows_the_readers_colour_scheme(
    artifacts: Path, tmp_path: Path, scheme: str
) -> None:
    picture = tmp_path / "page.png"
    page = artifacts / "report" / "report.html"
    browse(page, tmp_path, 1280, scheme, f"--screenshot={picture}")
    with Image.open(picture) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert tuple(pixels[2, 2].tolist()) == PAPER[scheme]
    assert np.unique(pixels.reshape(-1, 3), axis=0).shape[0] > 50  # not a blank page
