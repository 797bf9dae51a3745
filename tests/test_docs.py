"""What the pages say is so: their commands parse, their programs run, their links and tables hold."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of one language in a page."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def commands(program: str) -> list[tuple[str, list[str]]]:
    """(page, words after the program) of every documented command line of a program."""
    found = []
    for page in PAGES:
        for line in "\n".join(blocks(page, "sh")).splitlines():
            words = shlex.split(line, comments=True)
            if words[: len(program.split())] == program.split():
                found.append((page.name, words[len(program.split()) :]))
    return found


@pytest.mark.parametrize(("page", "words"), commands("anisora"), ids=lambda part: str(part)[:60])
def test_documented_commands_parse(page: str, words: list[str]):
    typer = pytest.importorskip("typer")
    from anisora.serving.cli import app
    from anisora.serving.cli.default import DEFAULT

    command = typer.main.get_command(app)
    while words and hasattr(command, "commands"):
        if words[0] not in command.commands and DEFAULT in command.commands:
            words = [DEFAULT, *words]
        assert words[0] in command.commands, f"{page}: no verb {words[0]}"
        command, words = command.commands[words[0]], words[1:]
    command.make_context(page, list(words))


@pytest.mark.parametrize(("page", "words"), commands("make"), ids=lambda part: str(part)[:60])
def test_documented_make_targets_exist(page: str, words: list[str]):
    assert re.search(rf"^{words[0]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_documented_benchmarks_have_their_flags():
    scripts: dict[str, set[str]] = {}
    for _, words in commands("python"):
        scripts.setdefault(words[0], set()).update(word for word in words if word.startswith("--"))
    assert scripts
    for script, flags in scripts.items():
        said = subprocess.run(
            [sys.executable, ROOT / script, "--help"],
            capture_output=True, text=True, check=True, env={"PYTHONPATH": str(ROOT / "src")},
        ).stdout  # fmt: skip
        assert not [flag for flag in flags if flag not in said], script


def test_python_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """In order, in one folder that holds the files they name; the checkpoint is a small random one."""
    from PIL import Image

    from anisora.models.tiny import write_tiny_checkpoint

    write_tiny_checkpoint(tmp_path / "checkpoint", "wan")
    (tmp_path / "path/to").mkdir(parents=True)
    (tmp_path / "path/to/checkpoint").symlink_to(tmp_path / "checkpoint")
    for name in ("hero.png", "end.png"):
        Image.new("RGB", (48, 32), "orange").save(tmp_path / name)
    mask = Image.new("L", (48, 32))
    mask.paste(255, (10, 10, 30, 30))
    mask.save(tmp_path / "hair.png")
    monkeypatch.chdir(tmp_path)
    for page in (ROOT / "README.md", DOCS / "python.md"):
        code = "\n".join(blocks(page, "python"))
        assert code
        exec(compile(code, page.name, "exec"), {})


def test_links_between_pages_lead_somewhere():
    dead = [
        f"{page.name}: {target}"
        for page in PAGES
        for target in re.findall(r"\]\(([^)#:]+\.md)", page.read_text())
        if not (page.parent / target).exists()
    ]
    assert not dead


def test_every_page_is_in_the_navigation():
    named = set(re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text()))
    assert named == {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}


def table_fields(heading: str) -> set[str]:
    """The names in backticks in the first column of the first table under a heading of files.md."""
    section = (DOCS / "files.md").read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("|")]
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}


@pytest.mark.parametrize("record", ["Request", "Generation"])
def test_files_page_lists_the_fields_of(record: str):
    from anisora import records

    assert table_fields(record) == {field.name for field in dataclasses.fields(getattr(records, record))}


def test_files_page_lists_the_fields_of_scores():
    from anisora.evaluation.records import MetricRecord

    listed = table_fields("Scores")
    assert {field.name for field in dataclasses.fields(MetricRecord)} <= listed


def test_the_example_of_anisora_json_is_valid(tmp_path: Path):
    from anisora.models.checkpoint import read_info
    from anisora.models.tiny import write_tiny_checkpoint

    example = json.loads(blocks(DOCS / "checkpoints.md", "json")[0])
    write_tiny_checkpoint(tmp_path, "wan")
    (tmp_path / "anisora.json").write_text(json.dumps(example))
    info = read_info(tmp_path)
    assert info.recipe.steps == example["recipe"]["steps"]
    assert info.native.frames == example["native"]["frames"]


def test_request_examples_are_valid(tmp_path: Path):
    from anisora.generation.request_files import load_requests

    for page in (DOCS / "index.md", DOCS / "requests.md"):
        for number, example in enumerate(blocks(page, "yaml")):
            path = tmp_path / f"{page.stem}{number}.yaml"
            path.write_text(example)
            assert len(load_requests(path)) == 2
