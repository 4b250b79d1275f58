import pytest

from deploy.report.figures import change, data_set, graph_title, interval, is_drawn, number, percent


@pytest.mark.parametrize(
    ("value", "text"), [(0.12345, "12.35"), (1, "100.00"), (-0.00001, "0.00"), (None, "–")]
)
def test_percent(value: float | None, text: str) -> None:
    assert percent(value) == text


def test_number_is_scaled_and_grouped() -> None:
    assert number(253_970_000_000, 2, 1e9) == "253.97"
    assert number(1234.56) == "1,234.6"
    assert number(None) == "–"


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        ({"value": 0.0012, "low": -0.002, "high": 0.0045}, "0.12 [-0.20, 0.45]"),
        ({"value": 0.0, "low": 0.0, "high": 0.0}, "0.00 [0.00, 0.00]"),
        ({"value": 0.0012, "low": None, "high": None}, "0.12"),  # of one image
        (None, "–"),
    ],
)
def test_interval(estimate: dict[str, float | None] | None, text: str) -> None:
    assert interval(estimate) == text


def test_data_set_of_scenes_is_called_drawn() -> None:
    photographs = {"name": "VOC2012", "split": "val", "images": 216}
    scenes = photographs | {"name": "scenes"}
    assert data_set(photographs) == "216 images of VOC2012 val"
    assert data_set(scenes) == "216 drawn scenes of val"
    assert not is_drawn(photographs)
    assert is_drawn(scenes)


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        (0.3943, 0.3931, "39.43 → 39.31 (-0.12)"),
        (0.3931, 0.3943, "39.31 → 39.43 (+0.12)"),
        (0.39431, 0.39432, "39.43"),
        (None, 0.5, "– → 50.00"),
        (0.5, None, "50.00 → –"),
        (None, None, "–"),
        (-0.00001, 0.0, "0.00"),
    ],
)
def test_change_says_what_was_what_is_and_the_difference(
    old: float | None, new: float | None, text: str
) -> None:
    assert change(old, new) == text


@pytest.mark.parametrize(
    ("name", "title"),
    [("torch", "torch"), ("fp16", "FP16"), ("int8", "INT8"), ("int8-ort-avx2", "INT8 ort-avx2")],
)
def test_graph_title(name: str, title: str) -> None:
    assert graph_title(name) == title
