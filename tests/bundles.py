"""What the tests of bundles share."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

import deploy
from deploy import models
from deploy.export.interface import Head, Interface
from deploy.targets import Toolchain
from deploy.targets.accelerator import Precision

VARIANT = models.DEFAULT_VARIANT
PLAIN = Interface()
DEVICE = Interface(head=Head.LABELS, embed_preprocessing=True)
COMMON = {"README.md", "SHA256SUMS", "check.py", "golden.npz", "labels.txt", "model.json"}


def make(
    artifacts: Path,
    folder: Path,
    toolchain: Toolchain,
    interface: Interface = PLAIN,
    precision: Precision = Precision.INT8,
) -> Path:
    written = deploy.bundle(
        VARIANT,
        toolchain,
        precision=precision,
        interface=interface,
        folder=folder / "bundle",
        out=artifacts,
    )
    assert written.path == folder / "bundle"
    return written.path


def names(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def check(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the bundle's own check, from elsewhere, without this package."""
    return subprocess.run(
        [sys.executable, str(folder / "check.py"), *arguments],
        capture_output=True,
        text=True,
        cwd="/",
        env={"PATH": os.environ["PATH"], **environment},
        check=False,
    )


def triton_config() -> Any:
    """Return an empty ModelConfig with the fields that are used, as Triton's protocol has them."""
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="model_config.proto", package="t", syntax="proto3"
    )

    def message(name: str, *fields: tuple[str, int, int, bool, str]) -> None:
        added = file.message_type.add(name=name)
        for field, number, kind, repeated, of in fields:
            label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
            added.field.add(name=field, number=number, type=kind, label=label, type_name=of or None)

    types = file.enum_type.add(name="DataType")
    for name, number in {
        "TYPE_INVALID": 0,
        "TYPE_UINT8": 2,
        "TYPE_FP16": 10,
        "TYPE_FP32": 11,
    }.items():
        types.value.add(name=name, number=number)
    text, integer, nested = kinds.TYPE_STRING, kinds.TYPE_INT64, kinds.TYPE_MESSAGE
    tensor = (
        ("name", 1, text, False, ""),
        ("data_type", 2, kinds.TYPE_ENUM, False, ".t.DataType"),
    )
    message("ModelInput", *tensor, ("dims", 4, integer, True, ""))
    message("ModelOutput", *tensor, ("dims", 3, integer, True, ""))
    message(
        "ModelInstanceGroup",
        ("count", 2, integer, False, ""),
        ("kind", 4, kinds.TYPE_ENUM, False, ".t.ModelInstanceGroup.Kind"),
    )
    kind = file.message_type[-1].enum_type.add(name="Kind")
    for number, name in enumerate(("KIND_AUTO", "KIND_GPU", "KIND_CPU", "KIND_MODEL")):
        kind.value.add(name=name, number=number)
    message("ModelParameter", ("string_value", 1, text, False, ""))
    message("Entry", ("key", 1, text, False, ""), ("value", 2, nested, False, ".t.ModelParameter"))
    message(
        "ModelConfig",
        ("name", 1, text, False, ""),
        ("max_batch_size", 4, integer, False, ""),
        ("input", 5, nested, True, ".t.ModelInput"),
        ("output", 6, nested, True, ".t.ModelOutput"),
        ("instance_group", 7, nested, True, ".t.ModelInstanceGroup"),
        ("parameters", 14, nested, True, ".t.Entry"),
        ("backend", 17, text, False, ""),
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("t.ModelConfig"))()
