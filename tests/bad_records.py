"""Broken calibration, validation and gate files, and command lines, by what is wrong with them."""

import json
from collections.abc import Callable
from typing import Any

Change = Callable[[dict[str, Any]], object]
Spoil = Callable[[str], str | bytes]
DEEP = "[" * 100_000


def edited(change: Change) -> Spoil:
    def spoil(text: str) -> str:
        content = json.loads(text)
        change(content)
        return json.dumps(content)

    return spoil


def _set(path: str, value: Any) -> Spoil:
    """Return what sets the value at a path such as ``results.int8.miou``."""

    def change(content: dict[str, Any]) -> None:
        *folders, last = path.split(".")
        for name in folders:
            content = content[name]
        content[last] = value

    return edited(change)


def _drop(path: str) -> Spoil:
    def change(content: dict[str, Any]) -> None:
        *folders, last = path.split(".")
        for name in folders:
            content = content[name]
        del content[last]

    return edited(change)


def _first_tensor(**entries: Any) -> Spoil:
    return edited(lambda content: next(iter(content["tensors"].values())).update(entries))


ANY_JSON: dict[str, Spoil] = {
    "empty": lambda _: "",
    "text": lambda _: "the figures are in the other file",
    "cut": lambda text: text[: len(text) // 2],
    "cut-at-the-end": lambda text: text.rstrip()[:-1],
    "not-utf-8": lambda text: text.encode("utf-16"),
    "nul": lambda text: text.replace("{", "{\0", 1),
    "null": lambda _: "null",
    "number": lambda _: "7",
    "list": lambda text: f"[{text}]",
    "empty-object": lambda _: "{}",
    "deep": lambda _: DEEP,
}
PICTURE = {"file": "../../secret.png", "sha256": "ab" * 32}
EXAMPLE_ELSEWHERE = {
    "graph": "int8",
    "images": [
        {
            "name": "2007_000033",
            "disagreement": 0.1,
            "pictures": dict.fromkeys(("image", "truth", "torch", "int8", "difference"), PICTURE),
        }
    ],
    "legend": [],
}
BAD_CALIBRATIONS: dict[str, Spoil] = {
    **ANY_JSON,
    "older-format": _set("format", 2),
    "newer-format": _set("format", 4),
    "format-in-words": _set("format", "three"),
    "of-another-graph": _set("graph_sha256", "ab" * 32),
    "hash-is-a-number": _set("graph_sha256", 7),
    "unknown-fit": _set("fit", "stretch"),
    "no-images": _set("images", []),
    "images-are-names": _set("images", ["train_0"]),
    "image-without-hash": _set("images", [{"name": "train_0"}]),
    "image-hash-is-null": _set("images", [{"name": "train_0", "sha256": None}]),
    "image-twice": edited(lambda c: c["images"].append(c["images"][0])),
    "samples-in-words": _set("samples_per_tensor", "many"),
    "tensors-are-a-list": _set("tensors", []),
    "no-tensors": _set("tensors", {}),
    "tensor-is-null": edited(lambda c: c["tensors"].update({next(iter(c["tensors"])): None})),
    "tensor-is-missing": edited(lambda c: c["tensors"].pop(next(iter(c["tensors"])))),
    "nan": _first_tensor(channel_max=[float("nan")]),
    "infinite": _first_tensor(channel_max=[float("inf")]),
    "beyond-float32": _first_tensor(channel_max=[1e300]),
    "minimum-above-maximum": _first_tensor(channel_min=[9e9], channel_max=[1.0]),
    "range-in-words": _first_tensor(channel_min=["low"], channel_max=["high"]),
    "negative-counts": _first_tensor(counts=[-1, 5]),
    "counts-beyond-int64": _first_tensor(counts=[2**70]),
    "counts-are-fractions": _first_tensor(counts=[0.5, 1.5]),
    "counts-are-nested": _first_tensor(counts=[[1, 2], [3, 4]]),
    "counts-are-a-number": _first_tensor(counts=5),
    "first-bin-outside": _first_tensor(first_bin=10**9),
    "first-bin-is-nan": _first_tensor(first_bin=float("nan")),
    "exponent-does-not-suit": _first_tensor(bin_exponent=40),
    "exponent-is-huge": _first_tensor(bin_exponent=10**30),
    "exponent-is-a-fraction": _first_tensor(bin_exponent=-10.5),
}
BAD_VALIDATIONS: dict[str, Spoil] = {
    **ANY_JSON,
    "older-schema": _set("schema", 1),
    "schema-in-words": _set("schema", "two"),
    "no-schema": _drop("schema"),
    "no-results": _drop("results"),
    "results-are-a-list": _set("results", []),
    "result-is-null": _set("results.int8", None),
    "of-another-variant": _set("name", "rf101"),
    "of-no-variant": _set("name", "rf-lw51"),
    "name-is-a-number": _set("name", 7),
    "miou-is-nan": _set("results.int8.miou", float("nan")),
    "miou-in-words": _set("results.int8.miou", "high"),
    "no-miou": _drop("results.fp16.miou"),
    "drop-is-a-number": _set("results.int8.miou_drop", 0.01),
    "drop-without-bounds": _set("results.int8.miou_drop", {"value": 0.01}),
    "classes-are-a-list": _set("results.int8.per_class_iou", [0.5]),
    "latency-is-zero": _set("results.int8.latency_ms", 0),
    "latency-is-null": _set("results.int8.latency_ms", None),
    "size-is-negative": _set("results.int8.size_bytes", -1),
    "weights-are-null": _set("weights", None),
    "dataset-is-text": _set("dataset", "VOC2012"),
    "input-size-is-a-number": _set("dataset.input_size", 500),
    "no-protocol": _drop("dataset.protocol"),
    "environment-is-null": _set("environment", None),
    "versions-are-numbers": _set("environment.versions", {"torch": 2.1}),
    "macs-are-infinite": _set("macs", float("inf")),
    "gate-is-text": _set("gate", "held"),
    "gate-is-empty": _set("gate", {}),
    "calibration-is-a-list": _set("calibration", ["minmax"]),
    "command-is-a-list": _set("command", ["deploy", "validate"]),
    "no-layers": _drop("layers"),
    "layers-are-a-list": _set("layers", []),
    "layer-is-a-name": _set("layers.layers", ["conv"]),
    "layer-sqnr-is-nan": edited(lambda c: c["layers"]["layers"][0].update(sqnr_db=float("nan"))),
    "no-examples": _drop("examples"),
    "examples-are-text": _set("examples", "cat.png"),
    "example-elsewhere": _set("examples", EXAMPLE_ELSEWHERE),
}
BAD_GATES: dict[str, Spoil] = {
    **ANY_JSON,
    "no-steps": _drop("steps"),
    "steps-are-null": _set("steps", None),
    "held-in-words": _set("held", "yes"),
    "gate-is-a-list": _set("gate", []),
    "images-are-negative": _set("tuning_images", -1),
}

# Refused by our own checks, with what the line must name.
BAD_VALUES: list[tuple[list[str], str]] = [
    *(
        (["export", "rf-lw-mbv2", "--input-size", size], size)
        for size in ("0", "31", "1000000000"[:9], "8193", "64x9999", "0x0")
    ),
    (["export", "rf-lw51"], "rf-lw51"),
    (["export", ""], "''"),
    (["quantize", "net.onnx", "--percentile", "-1", "--voc-root", "VOCdevkit"], "-1"),
    (["quantize", "net.onnx", "--percentile", "0", "--voc-root", "VOCdevkit"], "0"),
    (["quantize", "net.onnx", "--percentile", "100.1", "--voc-root", "VOCdevkit"], "100.1"),
    (["quantize", "net.onnx", "--percentile", "nan", "--voc-root", "VOCdevkit"], "nan"),
    (["quantize", "net.onnx", "--percentile", "inf", "--voc-root", "VOCdevkit"], "inf"),
    *(
        (["quantize", "net.onnx", option, value, "--voc-root", "VOCdevkit"], option)
        for option, values in {
            "--min-ratio": ("0", "-1", "1.01", "nan", "inf"),
            "--max-drop": ("-0.1", "nan", "inf", "101"),
            "--fp16-sqnr": ("nan", "inf", "-inf"),
        }.items()
        for value in values
    ),
    (["quantize", "net.onnx", "--images", "999999999", "--voc-root", "VOCdevkit"], "999999999"),
    (["quantize", "net.onnx", "--target", "npu", "--voc-root", "VOCdevkit"], "npu"),
    (["quantize", "net.onnx", "--split", "../train", "--voc-root", "VOCdevkit"], "../train"),
    (["quantize", "net.onnx", "--split", "a\0b", "--voc-root", "VOCdevkit"], "a"),
    (["quantize", "net.txt", "--images", "2", "--voc-root", "VOCdevkit"], "net.txt"),
    (["quantize", "net.onnx", "--voc-root", "net.onnx"], "net.onnx"),
    (["quantize", "rf101", "rf-lw50", "--calibration", "calibration.json"], "not of 2"),
    (["calibrate", "net.onnx", "--part", "0/2", "--voc-root", "VOCdevkit", "--images", "2"], "0/2"),
    (["calibrate", "net.onnx", "--part", "1/0", "--voc-root", "VOCdevkit", "--images", "2"], "1/0"),
    (["calibrate", "net.onnx", "--part", "1/9", "--voc-root", "VOCdevkit", "--images", "2"], "1/9"),
    (["validate", "net.onnx", "--baseline", "rf-lw51", "--voc-root", "VOCdevkit"], "rf-lw51"),
    (["validate", "net.onnx", "--split", "test", "--voc-root", "VOCdevkit"], "test"),
    (["validate", "../net", "--voc-root", "VOCdevkit"], "../net"),
    (["report", "rf-lw51"], "rf-lw51"),
    (["lint", "net.onnx", "--target", "npu"], "npu"),
    (["lint", "net.onnx", "--target", "vacc"], "vacc"),
    (["simplify", "net.onnx", "--output", "net.onnx/x.onnx"], "net.onnx/x.onnx"),
    (["train", "rf-lw51", "--voc-root", "VOCdevkit"], "rf-lw51"),
    *(
        (["train", "rf-lw-mbv2", "--voc-root", "VOCdevkit", f"--{option}", value], name)
        for option, value, name in (
            ("steps", "0", "steps"),
            ("steps", "-5", "steps"),
            ("batch-size", "0", "batch_size"),
            ("crop", "16", "crop"),
            ("encoder-rate", "0", "rates"),
            ("decoder-rate", "nan", "rates"),
            ("weight-decay", "nan", "weight_decay"),
            ("weight-decay", "-1", "weight_decay"),
            ("seed", "-1", "seed"),
            ("device", "tpu", "tpu"),
            ("device", "cuda:x", "cuda:x"),
            ("checkpoint-minutes", "nan", "minutes"),
        )
    ),
    (["train", "rf-lw-mbv2", "--voc-root", "VOCdevkit", "--zoom", "0", "1"], "zoom"),
    (["train", "rf-lw-mbv2", "--voc-root", "VOCdevkit", "--zoom", "2", "1"], "zoom"),
    (["train", "rf-lw-mbv2", "--voc-root", "VOCdevkit", "--zoom", "nan", "1"], "zoom"),
    (["train", "rf-lw-mbv2", "--voc-root", "VOCdevkit=nan"], "weights"),
    (["train", "rf-lw-mbv2", "--voc-root", "VOCdevkit=-1"], "weights"),
]
# Refused by the parser: exit code 2 and the usage.
WRONG_USAGE: list[list[str]] = [
    *(
        ["export", "rf-lw-mbv2", "--input-size", size]
        for size in (
            "-5",
            "1e9",
            "500x",
            "x500",
            "5x5x5",
            "",
            "500.0",
            "\u00b2",
            "\u0665",
            "9" * 30,
        )
    ),
    *(
        ["quantize", "net.onnx", option, value]
        for option, value in (
            ("--images", "0"),
            ("--images", "-1"),
            ("--images", "nan"),
            ("--images", "1.5"),
            ("--percentile", "most"),
            ("--tuning-images", "0"),
            ("--max-float-layers", "-1"),
            ("--min-ratio", "all"),
            ("--method", "median"),
            ("--recipe", "best"),
            ("--rounding", "up"),
            ("--fit", "stretch"),
            ("--unknown", "1"),
        )
    ),
    ["calibrate", "net.onnx", "--part", "1"],
    ["calibrate", "net.onnx", "--part", "\u00b2/\u00b3"],
    ["calibrate", "net.onnx", "--part", "-1/2"],
    ["validate", "net.onnx", "--limit", "-3"],
    ["validate", "net.onnx", "--protocol", "zoom"],
    ["validate", "net.onnx", "--runtime", "tensorrt"],
    ["scenes", "new", "--train", "-1"],
    ["scenes", "new", "--seed", "x"],
]
