"""Networks in ncnn: a program that ncnn.py starts. It imports nothing of ours.

What ncnn is not told to leave alone it does by default: it stores float layers' results as halves
where the processor has them. Here it does not, so that they compute what the graph says.
Requests: ``{"do": "open", "param", "bin", "threads"}``, ``{"do": "run", "image", "result", "input",
"output"}``: the files of arrays, and the blobs.
"""

import os
from typing import Any

import ncnn
import numpy as np

OFF = ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage")
NETS: list[Any] = []


def open_(param: str, bin: str, threads: int) -> dict[str, Any]:  # noqa: A002 - the request's key
    """Load a network; the answer has type and name of each layer, as ncnn has them."""
    net = ncnn.Net()
    net.opt.num_threads = threads
    net.opt.use_vulkan_compute = False
    for name in OFF:
        setattr(net.opt, name, False)
    for load, path in ((net.load_param, param), (net.load_model, bin)):
        if load(path) != 0:
            raise ValueError(f"{os.path.basename(path)} is none that ncnn reads")
    NETS[:] = [net]
    return {"layers": [[layer.type, layer.name] for layer in net.layers()]}


def run(image: str, result: str, input: str, output: str) -> dict[str, Any]:  # noqa: A002
    """Run the network on the image (C, H, W) in one file, write its result to another."""
    (net,) = NETS
    array = np.load(image)  # a Mat does not hold what it is made of
    with net.create_extractor() as extractor:
        if extractor.input(input, ncnn.Mat(array).clone()) != 0:
            raise ValueError(f"there is no blob {input}")
        code, found = extractor.extract(output)
        if code != 0:
            raise ValueError(f"ncnn gave code {code}")
        np.save(result, np.array(found))
    return {}


REQUESTS = {"open": open_, "run": run}
