"""From the results of each variant to one report, if they belong together."""

from collections.abc import Mapping, Sequence
from typing import Any

from deploy.errors import ReportError
from deploy.models import VARIANTS, Variant
from deploy.report.accelerators import accelerator_rows
from deploy.report.figures import has_published
from deploy.store.artifacts import SCHEMA
from deploy.targets import VENDOR

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
    *("layers", "examples"),
)


def build_report(
    results: Sequence[dict[str, Any]],
    elsewhere: Mapping[str, Sequence[dict[str, Any]]] | None = None,
) -> Report:
    """Merge validation results into the content of ``report.json`` (docs/formats.md).

    Args:
        results: of each variant, in the default runtime.
        elsewhere: of variants by name, in other runtimes: they fill the accelerators' table.

    Raises:
        ReportError: there are none, or two were measured on different images or protocols or in
            different runtimes.
    """
    if not results:
        raise ReportError("no validation results yet: run 'deploy validate' first")
    first = next((result for result in results if not _is_random(result)), results[0])
    for result in results:
        if not _is_same_data(first, result):
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
                "images": result["dataset"]["images"],
                "published": _published(VARIANTS[result["name"]], first["dataset"]),
                **{key: result.get(key) for key in PER_VARIANT},
                "results": {k: r for k, r in result["results"].items() if not k.endswith(VENDOR)},
                "accelerators": accelerator_rows(
                    [result, *(elsewhere or {}).get(result["name"], [])]
                ),
            }
            for result in results
        },
    }


def _is_random(result: Mapping[str, Any]) -> bool:
    """Say whether a variant's parameters are random."""
    return bool(result["weights"] and result["weights"]["source"] == "random")


def _is_same_data(first: Mapping[str, Any], result: Mapping[str, Any]) -> bool:
    """Say whether results are of the same images; of random parameters, of the same data set.

    These have no accuracy, and few images show how closely their graphs follow torch.
    """
    without = {"images", "images_sha256", "skipped"} if _is_random(result) else set()
    one, other = (
        {key: value for key, value in r["dataset"].items() if key not in without}
        for r in (first, result)
    )
    return one == other


def int8_graphs(variant: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the results of a variant's INT8 graphs, for whatever target, by name."""
    return {name: r for name, r in variant["results"].items() if name.startswith("int8")}


def _published(variant: Variant, dataset: dict[str, Any]) -> dict[str, float | None]:
    """Return others' figures, shares; of VOC, so that they are None for other data.

    So are those of a variant for which nobody published any.
    """
    figures = {
        "miou": variant.published_miou,
        "vacc_fp16_miou": variant.vacc_fp16_miou,
        "vacc_int8_miou": variant.vacc_int8_miou,
    }
    shown = has_published(dataset)
    return {k: v / 100 if shown and v is not None else None for k, v in figures.items()}
