"""Graphs on Qualcomm's HTP, by onnxruntime's QNN provider: a program that qnn.py starts.

It imports nothing of ours. A node that HTP does not take is an error, never computed elsewhere.
Requests: ``{"do": "open", "model", "soc", "context"}``, ``{"do": "run", "image", "result"}``.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import onnxruntime_qnn

VERBOSE, ERRORS = 0, 3  # severities of onnxruntime's logger
SESSIONS: list[onnxruntime.InferenceSession] = []


def open_(model: str, soc: int, context: str) -> dict[str, Any]:
    """Compile a graph for a chip; its context and the backend's own dump of it go to files.

    The log tells the traffic that was planned, at the most verbose level only.
    """
    onnxruntime.set_default_logger_severity(VERBOSE)
    name = onnxruntime_qnn.EP_NAME
    onnxruntime.register_execution_provider_library(name, onnxruntime_qnn.get_library_path())
    devices = [device for device in onnxruntime.get_ep_devices() if device.ep_name == name][:1]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = VERBOSE
    entries = {
        "session.disable_cpu_ep_fallback": "1",
        "ep.context_enable": "1",
        "ep.context_embed_mode": "0",
        "ep.context_file_path": context,
    }
    for key, value in entries.items():
        options.add_session_config_entry(key, value)
    settings = {
        "backend_path": onnxruntime_qnn.get_qnn_htp_path(),
        "soc_model": str(soc),
        "dump_json_qnn_graph": "1",
        "json_qnn_graph_dir": str(Path(context).parent),
    }
    options.add_provider_for_devices(devices, settings)
    session = onnxruntime.InferenceSession(model, options)
    session.disable_fallback()
    onnxruntime.set_default_logger_severity(ERRORS)
    SESSIONS[:] = [session]
    return {
        "inputs": [[port.name, port.type, port.shape] for port in session.get_inputs()],
        "outputs": [[port.name, port.type, port.shape] for port in session.get_outputs()],
    }


def run(image: str, result: str) -> dict[str, Any]:
    """Run the graph on the array in one file, write its first output to another."""
    (session,) = SESSIONS
    feed = {session.get_inputs()[0].name: np.load(image)}
    np.save(result, session.run([session.get_outputs()[0].name], feed)[0])
    return {}


REQUESTS = {"open": open_, "run": run}
