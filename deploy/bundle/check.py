"""Compare what the model of this folder gives for golden.npz's input with golden.npz's output.

python3 check.py                          run it here, in OpenVINO (model.xml), ncnn (model.param),
                                          LiteRT (model.tflite) or onnxruntime
python3 check.py sm8550                   run contexts/sm8550.onnx on that chip's HTP: on a device
                                          of its kind, or on x86 in the emulator that comes with
                                          onnxruntime-qnn
python3 check.py http://localhost:8000    ask a Triton server that serves it
python3 check.py output.json              read what trtexec --exportOutput wrote
python3 check.py output.npy               read what any other runtime gave

Needs numpy. Exit code 0 if enough labels agree.
"""

import importlib
import json
import sys
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
TYPES = {"float32": "FP32", "uint8": "UINT8"}  # KServe's names


def run_here(model: dict[str, Any], image: Any) -> Any:
    """Run the model that stands in this folder."""
    if (HERE / "model.xml").is_file():
        core = importlib.import_module("openvino").Core()
        hints = {"INFERENCE_PRECISION_HINT": "f32"}  # or it takes bfloat16 where there is that
        return core.compile_model(str(HERE / "model.xml"), "CPU", hints)([image])[0]
    if (HERE / "model.param").is_file():
        return run_in_ncnn(image)
    if (HERE / "model.tflite").is_file():
        return run_in_litert(image)
    onnxruntime = importlib.import_module("onnxruntime")
    path = next(path for path in HERE.rglob("*.onnx") if path.parent.name != "contexts")
    options = onnxruntime.SessionOptions()
    # Without it 8-bit products saturate on x86 without VNNI: an application must set it there, too.
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(None, {model["input"]["name"]: image})[0]


def run_in_ncnn(image: Any) -> Any:
    """Run the network in ncnn, what is float in float32."""
    ncnn = importlib.import_module("ncnn")
    net = ncnn.Net()
    for name in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage"):
        setattr(net.opt, name, False)  # or halves, where the processor has them
    for load, name in ((net.load_param, "model.param"), (net.load_model, "model.bin")):
        if load(str(HERE / name)) != 0:
            sys.exit(f"ncnn does not read {name}")
    with net.create_extractor() as extractor:
        extractor.input(net.input_names()[0], ncnn.Mat(image[0]).clone())
        _, output = extractor.extract(net.output_names()[0])
        return np.array(output)[None]


def run_in_litert(image: Any) -> Any:
    """Run the network in LiteRT."""
    library = importlib.import_module("ai_edge_litert.interpreter")
    interpreter = library.Interpreter(str(HERE / "model.tflite"))
    interpreter.allocate_tensors()
    (given,), (got,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.set_tensor(given["index"], image)
    interpreter.invoke()
    return interpreter.get_tensor(got["index"])


def run_on_htp(context: Path, model: dict[str, Any], image: Any) -> Any:
    """Run a context binary on Qualcomm's HTP; what cannot be computed there is an error."""
    onnxruntime = importlib.import_module("onnxruntime")
    qnn = importlib.import_module("onnxruntime_qnn")
    onnxruntime.set_default_logger_severity(3)
    onnxruntime.register_execution_provider_library(qnn.EP_NAME, qnn.get_library_path())
    devices = [d for d in onnxruntime.get_ep_devices() if d.ep_name == qnn.EP_NAME][:1]
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    options.add_provider_for_devices(devices, {"backend_path": qnn.get_qnn_htp_path()})
    session = onnxruntime.InferenceSession(str(context), options)
    session.disable_fallback()
    return session.run(None, {model["input"]["name"]: image})[0]


def ask_triton(address: str, model: dict[str, Any], image: Any) -> Any:
    """Send the image to a server by KServe's protocol, with binary tensors."""
    data = image.tobytes()
    header = {
        "inputs": [
            {
                "name": model["input"]["name"],
                "shape": model["input"]["shape"],
                "datatype": TYPES[model["input"]["type"]],
                "parameters": {"binary_data_size": len(data)},
            }
        ],
        "outputs": [{"name": model["output"]["name"], "parameters": {"binary_data": True}}],
    }
    text = json.dumps(header).encode()
    request = urllib.request.Request(
        f"{address.rstrip('/')}/v2/models/{model['name']}/infer",
        data=text + data,
        headers={
            "Content-Type": "application/octet-stream",
            "Inference-Header-Content-Length": str(len(text)),
        },
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        length = int(response.headers["Inference-Header-Content-Length"])
        body = response.read()
    (output,) = json.loads(body[:length])["outputs"]
    return np.frombuffer(body[length:], model["output"]["type"]).reshape(output["shape"])


def read_output(path: Path, model: dict[str, Any]) -> Any:
    """Read an output that was saved: by numpy, or by trtexec."""
    if path.suffix == ".npy":
        return np.load(path)
    outputs = {entry["name"]: entry["values"] for entry in json.loads(path.read_text())}
    values = np.array(outputs[model["output"]["name"]], model["output"]["type"])
    return values.reshape(model["output"]["shape"])


def main(arguments: list[str]) -> int:
    """Compare, print, and return the exit code."""
    model = json.loads((HERE / "model.json").read_text())
    golden = np.load(HERE / model["golden"]["file"])
    image, expected = (golden[model[key]["name"]] for key in ("input", "output"))
    source = arguments[0] if arguments else ""
    context = HERE / "contexts" / f"{source}.onnx"
    if context.is_file():
        found = run_on_htp(context, model, image)
    elif source.startswith("http"):
        found = ask_triton(source, model, image)
    else:
        found = read_output(Path(source), model) if source else run_here(model, image)
    if "quantization" in model["output"] and found.dtype == np.uint8:
        affine = model["output"]["quantization"]
        found = (found.astype(np.float32) - affine["zero_point"]) * np.float32(affine["scale"])
    if list(found.shape) != list(expected.shape):
        print(f"the output's shape is {found.shape}, not {expected.shape}")
        return 1
    if not np.isfinite(found).all():
        print("the output holds values that are no numbers")
        return 1
    if model["output"]["head"] == "labels":
        agreement = (found == expected).mean()
    else:
        axis = model["output"]["layout"].index("C")
        agreement = (found.argmax(axis=axis) == expected.argmax(axis=axis)).mean()
        difference = np.abs(found - expected).max() / np.ptp(expected)
        print(f"logits differ by {difference:.2g} of their range at most")
    wanted = model["golden"]["agreement"]
    print(f"{100 * agreement:.2f}% of the labels agree ({100 * wanted:g}% are wanted)")
    return int(agreement < wanted)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
