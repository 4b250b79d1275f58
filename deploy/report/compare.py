"""What changed since an earlier report: figure by figure, and whether that is a regression."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from deploy.errors import ReportError
from deploy.report.build import Report
from deploy.report.figures import number, percent
from deploy.store.artifacts import SCHEMA

READABLE = (2, 3, 4, SCHEMA)  # schemas of earlier reports that hold all that is compared
TOLERANCE = 0.5  # points of mIoU; of agreement, where there is no mIoU
SAME_DATA = ("name", "split", "images", "images_sha256", "protocol", "input_size", "classes")
SAME_MACHINE = ("cpu", "threads")
NEEDED = ("miou", "miou_drop", "agreement", "sqnr_db", "latency_ms", "size_bytes", "sha256")

Figures = Mapping[str, Any]
Change = dict[str, float | None]


def read_earlier(path: Path) -> Report:
    """Return an earlier report.

    Raises:
        ReportError: the file is missing, no report, or one that this version cannot compare with.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ReportError(f"no report at {path}: pass the report.json of an earlier run") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ReportError(
            f"{path} cannot be read as JSON ({error}): pass the report.json of an earlier run"
        ) from None
    if not isinstance(content, dict) or "schema" not in content:
        raise ReportError(f"{path} is no report: pass the report.json of an earlier run")
    if content["schema"] not in READABLE:
        raise ReportError(
            f"{path} has schema {content['schema']!r}, but this version compares with "
            f"{', '.join(map(str, READABLE))}: write that report again with this version"
        )
    try:
        _check(content)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ReportError(
            f"{path} is no whole report ({type(error).__name__}: {error}): pass the report.json of "
            "an earlier run"
        ) from None
    return content


def _check(content: Report) -> None:
    """Touch all that is compared; raises one of the errors that a wrong structure gives."""
    _ = [content["dataset"][key] for key in SAME_DATA]
    _ = [content["environment"][key] for key in (*SAME_MACHINE, "date")]
    _ = dict(content["environment"]["versions"])
    for variant in content["variants"].values():
        _ = variant["weights"]["source"], variant["weights"]["sha256"], variant.get("runtime")
        for figures in variant["results"].values():
            for key in NEEDED:
                value = figures[key]
                if key == "miou_drop" and value is not None:
                    value = value["value"]
                if key != "sha256" and value is not None:
                    float(value)


def compare_reports(
    earlier: Report, content: Report, *, file: str, tolerance: float = TOLERANCE
) -> dict[str, Any]:
    """Return what changed, as ``comparison`` in report.json (docs/formats.md) has it.

    A regression is a graph whose mIoU fell by more than ``tolerance`` points (of random parameters,
    its agreement with torch), and a graph or an accuracy that is no longer there.

    Args:
        earlier: the report that is compared with.
        content: the new report.
        file: the name of the earlier one.
        tolerance: points, at least 0.

    Raises:
        ReportError: the two were measured on different data, or have no variant in common; the
            tolerance is below 0 or no number.
    """
    if not tolerance >= 0:
        raise ReportError(f"--tolerance {tolerance}: it must be at least 0")
    for key in SAME_DATA:
        old, new = earlier["dataset"][key], content["dataset"][key]
        if old != new:
            raise ReportError(
                f"{file} was measured on other data ({key.replace('_', ' ')} {old}, here {new}): "
                "validate both on the same images with the same protocol"
            )
    before, after = earlier["variants"], content["variants"]
    shared = [name for name in after if name in before]
    if not shared:
        raise ReportError(
            f"{file} has no variant of this report ({', '.join(after)}): nothing compares"
        )
    changes = {name: _compare_variant(before[name], after[name]) for name in shared}
    return {
        "file": file,
        "date": earlier["environment"]["date"],
        "tolerance": tolerance,
        "notes": list(_notes(earlier, content, shared)),
        "added": [name for name in after if name not in before],
        "removed": [name for name in before if name not in after],
        "variants": changes,
        "regressions": [
            text
            for name in shared
            if _same_images(before[name], after[name])
            for text in _regressions(name, changes[name], tolerance)
        ],
    }


def _same_images(old: Figures, new: Figures) -> bool:
    """Say whether a variant's networks saw as many images; random ones may see fewer than all."""
    is_random = new["weights"]["source"] == "random"
    return not is_random or old.get("images") == new.get("images")


def _notes(earlier: Report, content: Report, shared: list[str]) -> Iterator[str]:
    """Yield what else is not the same, and what that means."""
    for name in shared:
        old, new = (report["variants"][name] for report in (earlier, content))
        if old["weights"]["sha256"] != new["weights"]["sha256"]:
            yield (
                f"{name}: other parameters ({old['weights']['source']} "
                f"{old['weights']['sha256'][:12]}, now {new['weights']['source']} "
                f"{new['weights']['sha256'][:12]}): the change is theirs as well"
            )
        if not _same_images(old, new):
            yield (
                f"{name}: {new['images']} images, {old.get('images', 'others')} before: of random "
                "parameters, figures of other images do not compare"
            )
        if old.get("runtime") != new.get("runtime"):
            yield f"{name}: ran in {old.get('runtime')}, now in {new.get('runtime')}"
    old, new = earlier["environment"], content["environment"]
    if any(old[key] != new[key] for key in SAME_MACHINE):
        yield (
            f"other hardware ({old['cpu']}, {old['threads']} threads; now {new['cpu']}, "
            f"{new['threads']}): speeds do not compare"
        )
    for package in sorted(old["versions"].keys() | new["versions"].keys()):
        versions = [side["versions"].get(package, "not installed") for side in (old, new)]
        if versions[0] != versions[1]:
            yield f"{package} {versions[0]}, now {versions[1]}"


def _compare_variant(old: Figures, new: Figures) -> dict[str, Any]:
    before, after = _results(old), _results(new)
    return {
        "random": new["weights"]["source"] == "random",
        "added": [graph for graph in after if graph not in before],
        "removed": [graph for graph in before if graph not in after],
        "graphs": {
            graph: {
                key: {"old": value, "new": after[graph][key]}
                for key, value in before[graph].items()
            }
            for graph in after
            if graph in before
        },
    }


def _results(variant: Figures) -> dict[str, dict[str, float | str | None]]:
    """Return the figures of each graph that are compared."""
    results = variant["results"]
    torch = results.get("torch", {}).get("latency_ms")
    return {
        graph: {
            "miou": figures["miou"],
            "miou_drop": figures["miou_drop"] and figures["miou_drop"]["value"],
            "agreement": figures["agreement"],
            "sqnr_db": figures["sqnr_db"],
            "speed": torch and figures["latency_ms"] and torch / figures["latency_ms"],
            "size_bytes": figures["size_bytes"],
            "sha256": figures["sha256"],
        }
        for graph, figures in results.items()
    }


def _regressions(name: str, changes: Figures, tolerance: float) -> Iterator[str]:
    """Yield what got worse by more than the tolerance."""
    for graph in changes["removed"]:
        yield f"{name} {graph} is no longer there"
    for graph, figures in changes["graphs"].items():
        lost = [
            title
            for key, title in (("miou", "mIoU"), ("agreement", "agreement"))
            if figures[key]["old"] is not None and figures[key]["new"] is None
        ]
        if lost:
            yield f"{name} {graph} has no {' and no '.join(lost)} any more"
            continue
        key, title = ("agreement", "agreement") if changes["random"] else ("miou", "mIoU")
        old, new = figures[key]["old"], figures[key]["new"]
        if old is None:
            continue
        fell = 100 * (old - new)
        if fell > tolerance + 1e-9:  # of the subtraction's rounding
            yield (
                f"{name} {graph}: {title} fell by {number(fell, 2)} points, "
                f"{percent(old)} to {percent(new)}"
            )
