"""Small ONNX files written byte by byte (protobuf's wire format), as no package here writes them: CCIP's two networks."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np

FLOAT, OPSET = 1, 13


def _varint(number: int) -> bytes:
    found = b""
    while number > 127:
        found, number = found + bytes([number & 127 | 128]), number >> 7
    return found + bytes([number])


def _field(number: int, value: int | str | bytes) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _tensor(name: str, array: np.ndarray) -> bytes:
    dims = b"".join(_field(1, side) for side in array.shape)
    return dims + _field(2, FLOAT) + _field(8, name) + _field(9, array.astype("<f4").tobytes())


def _value(name: str, sides: Sequence[int | str]) -> bytes:
    dims = b"".join(_field(1, _field(1, s) if isinstance(s, int) else _field(2, s)) for s in sides)
    return _field(1, name) + _field(2, _field(1, _field(1, FLOAT) + _field(2, dims)))


def _node(op: str, inputs: Sequence[str], output: str, **attributes: int | float | list[int]) -> bytes:
    made = b"".join(_field(1, name) for name in inputs) + _field(2, output) + _field(4, op)
    for name, value in attributes.items():
        if isinstance(value, list):
            said = b"".join(_field(8, number) for number in value) + _field(20, 7)
        elif isinstance(value, int):
            said = _field(3, value) + _field(20, 2)
        else:
            said = _varint(2 << 3 | 5) + struct.pack("<f", value) + _field(20, 1)
        made += _field(5, _field(1, name) + said)
    return made


def _write(path: Path, nodes: Sequence[bytes], weights: dict[str, np.ndarray], given: bytes, output: bytes) -> Path:
    graph = b"".join(_field(1, node) for node in nodes) + _field(2, "tiny")
    graph += b"".join(_field(5, _tensor(name, array)) for name, array in weights.items())
    graph += _field(11, given) + _field(12, output)
    path.write_bytes(_field(1, 8) + _field(7, graph) + _field(8, _field(1, "") + _field(2, OPSET)))
    return path


def write_features(path: Path, width: int = 6, side_px: int = 384, seed: int = 0) -> Path:
    """Pictures [N, 3, 384, 384] -> features: the means of 4 x 4 fields, through a random linear layer."""
    rng = np.random.default_rng(seed)
    field = side_px // 4
    nodes = [
        _node("AveragePool", ["input"], "pooled", kernel_shape=[field, field], strides=[field, field]),
        _node("Flatten", ["pooled"], "flat", axis=1),
        _node("Gemm", ["flat", "weight", "bias"], "output"),
    ]
    weights = {"weight": rng.normal(size=(48, width)), "bias": rng.normal(size=width)}
    return _write(
        path, nodes, weights, _value("input", ["batch", 3, side_px, side_px]), _value("output", ["batch", width])
    )


def write_differences(path: Path, width: int = 6) -> Path:
    """Features [N, width] -> [N, N]: 0.5 less half the tanh of an eighth of their products, which knows lengths."""
    nodes = [
        _node("Gemm", ["input", "input"], "products", transB=1, alpha=0.125),
        _node("Tanh", ["products"], "flat"),
        _node("Mul", ["flat", "half"], "halved"),
        _node("Sub", ["shift", "halved"], "output"),
    ]
    weights = {"half": np.full(1, 0.5), "shift": np.full(1, 0.5)}
    return _write(path, nodes, weights, _value("input", ["batch", width]), _value("output", ["batch", "batch"]))
