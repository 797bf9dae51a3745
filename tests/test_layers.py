"""What holds the repository together: who imports whom, what an import costs, and what the documents promise."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src/anisora").rglob("*.py"))
HEAVY = ("torch", "diffusers", "transformers", "cv2", "av", "numpy", "PIL", "scipy", "typer", "rich", "jinja2")

#: Accelerators and their collectives are spelled in runtime.py alone, so that a new one is a change in one file.
ACCELERATOR = re.compile(r"\b(cuda|npu|mps|xpu|nccl|hccl|gloo)\b", re.IGNORECASE)


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_imports_run_down_the_stack():
    lint = Path(sys.executable).with_name("lint-imports")
    if not lint.exists():
        pytest.skip("import-linter is not installed")
    done = subprocess.run(
        [lint, "--config", "pyproject.toml"], cwd=ROOT, env={"PYTHONPATH": "src"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_importing_the_package_imports_nothing_heavy():
    code = f"import sys, anisora, anisora.errors; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT / "src")}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_public_names_are_sorted_and_all_resolve():
    import anisora

    assert anisora.__all__ == sorted(anisora.__all__)
    for name in anisora.__all__:
        assert getattr(anisora, name).__name__ == name


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_every_module_opens_with_what_it_is(path: Path):
    docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
    assert len(docstring) > 20, f"{relative(path)} has no opening paragraph"


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_accelerators_are_spelled_in_runtime_only(path: Path):
    if path.name == "runtime.py":
        return
    with path.open("rb") as file:
        code = [t for t in tokenize.tokenize(file.readline) if t.type in (tokenize.NAME, tokenize.STRING)]
    docstrings = docstring_lines(path)
    found = [f"line {t.start[0]}: {t.string[:60]}" for t in code if ACCELERATOR.search(t.string)]
    assert not [line for line in found if int(line.split()[1].rstrip(":")) not in docstrings], found


def docstring_lines(path: Path) -> set[int]:
    """The lines on which docstrings start: they may speak of accelerators."""
    tree = ast.parse(path.read_text())
    holders = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return {
        node.body[0].lineno
        for node in ast.walk(tree)
        if isinstance(node, holders) and node.body and ast.get_docstring(node, clean=False) is not None
    }


def test_public_functions_say_what_comes_back():
    """Every public function and class has a docstring; methods may rely on their class, entries of a table on the table."""
    silent = []
    for path in SOURCES:
        body = ast.parse(path.read_text()).body
        tables = [node.value for node in body if isinstance(node, ast.Assign | ast.AnnAssign) and node.value]
        entries = {name.id for table in tables for name in ast.walk(table) if isinstance(name, ast.Name)}
        silent += [
            f"{relative(path)}: {node.name}"
            for node in body
            if isinstance(node, ast.FunctionDef | ast.ClassDef)
            and not node.name.startswith("_")
            and node.name not in entries
            and ast.get_docstring(node) is None
        ]
    assert not silent
