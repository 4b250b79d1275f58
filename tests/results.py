"""Validation results with made-up figures, as ``deploy validate`` would write them."""

import json
import re
from importlib.resources import files
from typing import Any

from deploy.calibration.voc import CLASSES

MIOU = {"torch": 0.6109, "fp32": 0.6109, "fp16": 0.6110, "int8": 0.5935}
FIDELITY = {  # agreement, SQNR, cosine
    "torch": (1.0, None, 1.0),
    "fp32": (1.0, 120.94, 1.0),
    "fp16": (0.9993, 55.61, 0.999998),
    "int8": (0.9780, 25.84, 0.99837),
}
SCHEMA = json.loads((files("deploy.report") / "report.schema.json").read_text(encoding="utf-8"))


def cells(html: str) -> str:
    """Return a page's text, its tags as spaces."""
    return " ".join(re.sub(r"<[^>]*>", " ", html).split())


def validation(
    name: str = "rf-lw-mbv2", source: str = "repository", data: str = "VOC2012"
) -> dict[str, Any]:
    """Return a variant's results: INT8 drops by 1.74 points, [-0.31, 3.45]."""
    trained = source != "random"
    return {
        "schema": 5,
        "name": name,
        "variant": name,
        "dataset": {
            "name": data,
            "split": "val",
            "images": 50,
            "images_sha256": "cd" * 32,
            "protocol": "crop",
            "input_size": [500, 500],
            "classes": 21,
        },
        "environment": {
            "date": "2026-11-22",
            "cpu": "a CPU",
            "instruction_sets": ["AVX-512 VNNI"],
            "threads": 2,
            "memory_gib": 24,
            "system": "Linux",
            "python": "3.11",
            "versions": {"torch": "2.13.0"},
        },
        "weights": {"source": source, "sha256": "ef" * 32},
        "parameters": 3_284_565,
        "macs": 8_272_000_000,
        "calibration": {"method": "minmax", "images": 50, "recipe": "fast"},
        "gate": None,
        "runtime": "onnxruntime",
        "soc": None,
        "exact_options": None,
        "command": f"deploy validate {name} --limit 50",
        "results": {graph: figures(graph, trained) for graph in MIOU},
        "layers": layers(),
        "examples": None,
    }


def figures(graph: str, trained: bool) -> dict[str, Any]:
    """Return one network's figures; those that random parameters have not are None."""
    agreement, sqnr, cosine = FIDELITY[graph]
    miou, drop = MIOU[graph], MIOU["torch"] - MIOU[graph]
    accuracy = {
        "miou": miou,
        "per_class_iou": {
            name: miou if name in ("background", "cat") else None for name in CLASSES
        },
        "pixel_accuracy": 0.9059,
        "miou_drop": {"value": drop, "low": drop - 0.0205, "high": drop + 0.0171},
        "miou_ratio": {"value": miou / MIOU["torch"], "low": 0.9425, "high": 1.0051},
    }
    if graph == "torch":
        accuracy |= {"miou_drop": None, "miou_ratio": None}
    return {
        **(accuracy if trained else dict.fromkeys(accuracy)),
        "agreement": agreement,
        "sqnr_db": sqnr,
        "cosine": cosine,
        "latency_ms": 100.0,
        "default_options": None,
        "int8_convolutions": {"int8": [78, 78], "torch": None}.get(graph, [0, 78]),
        "footprint": None,
        "device": None,
        "size_bytes": 13_100_000,
        "sha256": None if graph == "torch" else "ab" * 32,
    }


def layers() -> dict[str, Any]:
    """Return the SQNR of three layers, of which the second is the worst and the last has none."""
    return {
        "graph": "int8",
        "images": 4,
        "equalized": False,
        "layers": [
            {"node": "stem.0", "op_type": "Conv", "tensor": "relu", "sqnr_db": 41.26},
            {"node": "node_add", "op_type": "Add", "tensor": "add", "sqnr_db": 19.74},
            {"node": "head.0", "op_type": "Conv", "tensor": "logits", "sqnr_db": None},
        ],
    }
