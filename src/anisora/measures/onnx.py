"""Opens networks in ONNX files the way that all measures run them: on the CPU, in one thread, without spinning.

One thread, because workers run side by side and the order of sums, hence the score, must not depend on the machine.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


def session(path: Path) -> Any:
    """An ONNX Runtime session of a file."""
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
