"""The images on which INT8 differs most from torch, as a page that needs no other file has them."""

import base64
from collections.abc import Mapping
from typing import Any

from deploy.errors import ReportError
from deploy.validate.examples import BETTER, DIFFERENCES, OTHER, WORSE

KINDS = {
    "image": "image",
    "truth": "ground truth",
    "torch": "torch",
    "int8": "INT8",
    "difference": "where they differ",
}
TYPES = {"jpg": "image/jpeg", "png": "image/png"}
DIFFERENCE_LEGEND = [
    ("only torch is right", DIFFERENCES[WORSE]),
    ("only INT8 is right", DIFFERENCES[BETTER]),
    ("neither is, or the pixel is ignored", DIFFERENCES[OTHER]),
]


def image_strip(examples: Mapping[str, Any], pictures: Mapping[str, bytes]) -> list[dict[str, Any]]:
    """Return the images, each with its pictures as data URIs.

    Args:
        examples: as report.json has them.
        pictures: the files that they name.

    Raises:
        ReportError: a picture is not there.
    """
    return [
        {
            "name": image["name"],
            "disagreement": image["disagreement"],
            "pictures": [
                {"title": title, "kind": kind, "uri": _uri(image["pictures"][kind], pictures)}
                for kind, title in KINDS.items()
            ],
        }
        for image in examples["images"]
    ]


def _uri(picture: Mapping[str, str], pictures: Mapping[str, bytes]) -> str:
    """Return a picture as a data URI."""
    name = picture["file"]
    if name not in pictures:
        raise ReportError(f"the picture {name} is not there: run 'deploy validate' again")
    content = base64.b64encode(pictures[name]).decode()
    return f"data:{TYPES[name.rsplit('.', 1)[-1]]};base64,{content}"
