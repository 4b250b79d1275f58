"""From the results of each variant to one report, if they belong together."""

from collections.abc import Mapping, Sequence
from typing import Any

from deploy.errors import ReportError
from deploy.models import VARIANTS, Variant
from deploy.report.figures import has_published
from deploy.store.artifacts import SCHEMA

Report = dict[str, Any]
PER_VARIANT = (
    *(
        "command",
        "weights",
        "parameters",
        "macs",
        "calibration",
        "gate",
        "runtime",
        "exact_options",
    ),
    *("results", "layers", "examples"),
)


def build_report(results: Sequence[dict[str, Any]]) -> Report:
    """Merge validation results into the content of ``report.json`` (docs/formats.md).

    Raises:
        ReportError: there are none, or two were measured on different images or protocols or in
            different runtimes.
    """
    if not results:
        raise ReportError("no validation results yet: run 'deploy validate' first")
    first = results[0]
    for result in results[1:]:
        if result["dataset"] != first["dataset"]:
            raise ReportError(
                f"{first['name']} and {result['name']} were validated on different images or "
                "protocols: run 'deploy validate' on both again"
            )
        if result.get("runtime") != first.get("runtime"):
            raise ReportError(
                f"{first['name']} and {result['name']} were validated in different runtimes: run "
                "'deploy validate' on both again"
            )
    return {
        "schema": SCHEMA,
        "dataset": first["dataset"],
        "environment": first["environment"],
        "comparison": None,
        "variants": {
            result["name"]: {
                "full_name": VARIANTS[result["name"]].full_name,
                "published": _published(VARIANTS[result["name"]], first["dataset"]),
                **{key: result.get(key) for key in PER_VARIANT},
            }
            for result in results
        },
    }


def int8_graphs(variant: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the results of a variant's INT8 graphs, for whatever target, by name."""
    return {name: r for name, r in variant["results"].items() if name.startswith("int8")}


def _published(variant: Variant, dataset: dict[str, Any]) -> dict[str, float | None]:
    """Return others' figures, shares; they are of VOC, and None for other data."""
    figures = {
        "miou": variant.published_miou,
        "vacc_fp16_miou": variant.vacc_fp16_miou,
        "vacc_int8_miou": variant.vacc_int8_miou,
    }
    return {k: value / 100 if has_published(dataset) else None for k, value in figures.items()}
