"""The command as users meet it: flags, exit codes, one clear message, interruption and resumption."""

from __future__ import annotations

import inspect
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from anisora.generation.request_files import load_requests
from anisora.generation.runner import json_path
from anisora.media.reader import probe
from anisora.records import Guide, Lora, Request
from anisora.serving.cli import run
from anisora.serving.cli.flags import given_fields, request_parameters
from anisora.settings import settings_of

VERBS = ["generate", "train", "train captioner", "train heads", "demo", "doctor"]
VERBS += [f"curate {verb}" for verb in ("select", "report", "review", "latents", "verify", "retry", "purge")]
VERBS += ["models list", "models show", "models convert", "models verify"]


@pytest.fixture
def still(tmp_path: Path, picture: Callable[..., np.ndarray]) -> str:
    Image.fromarray(picture()).save(tmp_path / "still.png")
    return str(tmp_path / "still.png")


@pytest.fixture
def words(tiny: Callable[..., Path], still: str) -> list[str]:
    """A command line that works, without --out."""
    return ["generate", "--prompt", "a girl", "--guide", still, "--model", str(tiny("wan")), "--device", "cpu"]


# -- flags -------------------------------------------------------------------------------------------------------------


def test_every_field_has_its_flag_and_every_flag_its_field():
    fields = [setting.name for setting in settings_of(Request)]
    assert [parameter.name for parameter in request_parameters()] == fields
    flags = [parameter.default.param_decls[0] for parameter in request_parameters()]
    assert len(set(flags)) == len(flags)
    from anisora.serving.cli import generate

    others = set(inspect.signature(generate.generate).parameters) - set(fields)
    assert others == {"request_file", "again", "device", "dtype", "offload", "as_json"}


def test_flags_say_what_files_say(tmp_path: Path):
    """Every field, once as a flag and once in a file."""
    flags = {
        "prompt": "a girl", "negative_prompt": "blur", "guides": ["/a.png@37%", "/b.png@-1"], "motion_mask": "/m.png",
        "video": "/v.mp4", "keep_mask": "/k.mp4", "model": "x", "size": "64x48", "frames": 9, "fps": "24000/1001",
        "steps": 3, "guidance": 1.5, "shift": 3.0, "motion_score": 2.0, "aesthetic_score": 5.0, "no_text": False,
        "seed": 7, "recipe": "draft", "window": 9, "snap": "anisora", "fit": "contain", "composite": False,
        "lora": ["/l.safetensors:0.5"], "out": "/o.mp4",
    }  # fmt: skip
    assert set(flags) == {setting.name for setting in settings_of(Request)}
    in_file = {
        **flags,
        "guides": [{"image": "/a.png", "at": "37%"}, {"image": "/b.png", "at": -1}],
        "size": [64, 48],
        "lora": [{"path": "/l.safetensors", "scale": 0.5}],
    }
    (tmp_path / "shot.yaml").write_text(yaml.safe_dump(in_file))
    request = Request(**given_fields(flags))
    assert load_requests(tmp_path / "shot.yaml") == [request]
    assert request.guides == (Guide("/a.png", "37%"), Guide("/b.png", -1))
    assert request.lora == (Lora(path="/l.safetensors", scale=0.5),)


def test_what_is_not_given_is_left_open():
    assert given_fields({"prompt": "x", "steps": None, "guides": []}) == {"prompt": "x"}


# -- help and import ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(verb: str, capsys: pytest.CaptureFixture[str]):
    assert run([*verb.split(), "--help"]) == 0
    assert f"anisora {verb}" in " ".join(capsys.readouterr().out.split())


def test_the_command_imports_nothing_heavy():
    heavy = ["torch", "diffusers", "transformers", "cv2", "av", "numpy", "PIL", "yaml", "jinja2"]
    code = f"import sys, anisora.serving.cli; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert out.stdout.strip() == "[]"


# -- what is printed ---------------------------------------------------------------------------------------------------


def test_json_alone_on_stdout(words: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    out = tmp_path / "shot.mp4"
    assert run([*words, "--out", str(out), "--json"]) == 0
    printed = json.loads(capfd.readouterr().out)
    assert printed == json.loads(json_path(out).read_text())


def test_a_request_file_prints_a_list(words: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    shots = [{"prompt": "x", "seed": 1}, {"prompt": "y", "frames": 6}]
    (tmp_path / "shots.yaml").write_text(yaml.safe_dump(shots))
    line = [
        "generate",
        "--request",
        str(tmp_path / "shots.yaml"),
        *words[3:],
        "--out",
        str(tmp_path / "made"),
        "--json",
    ]
    assert run(line) == 1
    captured = capfd.readouterr()
    first, second = json.loads(captured.out)
    assert Path(first["out"]).name == "shots_001.mp4"
    assert "illegal number of frames" in second["error"]
    assert "1 of 2 shots failed" in captured.err


def test_a_shot_is_made_again_from_its_file(words: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    assert run([*words, "--seed", "3", "--out", str(tmp_path / "one.mp4")]) == 0
    assert run(["generate", "--request", str(tmp_path / "one.mp4")]) == 2
    assert "nowhere to write" in capfd.readouterr().err
    assert run(["generate", "--request", str(tmp_path / "one.mp4"), "--out", str(tmp_path / "two.mp4")]) == 0
    one, two = (json.loads((tmp_path / name).read_text()) for name in ("one.json", "two.json"))
    assert one["request_hash"] == two["request_hash"]
    line = ["generate", "--request", str(tmp_path / "one.mp4"), "--seed", "4", "--out", str(tmp_path / "three.mp4")]
    assert run(line) == 0
    three = json.loads((tmp_path / "three.json").read_text())
    assert three["request"] == {**one["request"], "seed": 4, "out": str(tmp_path / "three.mp4")}


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--frames", "32"], ("illegal number of frames", "got: 32", "try: 29 or 33")),
        (["--size", "100x96"], ("illegal size", "got: 100x96", "try: 96x96")),
        (["--size", "wide"], ("unreadable size", "WxH")),
        (["--guide", "STILL@99"], ("outside the shot", "frames 0 to 8")),
        (["--guide", "STILL@0"], ("two guides on one frame", "expected: one guide a frame")),
        (["--guide", "STILL@soon"], ("unreadable guide position", "try: ")),
        (["--guide", "stil.png@2"], ("does not exist",)),
        (["--model", "nobody"], ("unknown model", "got: 'nobody'")),
        (["--recipe", "slow"], ("unknown recipe",)),
        (["--dtype", "float7"], ("unknown dtype",)),
        (["--device", "abacus"], ("unknown device",)),
        (["--offload", "parts"], ("nothing to offload from",)),
        (["--promt", "x"], ("--promt", "try: --prompt")),
        (["--frames", "many"], ("integer",)),
        (["--lora", "STILL"], ("an unreadable LoRA",)),
    ],
)
def test_bad_input_is_one_clear_message(
    more: list[str],
    said: tuple[str, ...],
    words: list[str],
    still: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
):
    out = tmp_path / "shot.mp4"
    assert run([*words, *(word.replace("STILL", still) for word in more), "--out", str(out)]) == 2
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert "Traceback" not in captured.err
    told = " ".join(captured.err.split())
    for phrase in said:
        assert phrase in told
    assert not out.exists()


@pytest.mark.parametrize("line", [["generate"], ["generate", "--out", "x.mp4"], ["generate", "--prompt", "x"]])
def test_nothing_to_make_or_nowhere_to_write(line: list[str], capfd: pytest.CaptureFixture[str]):
    assert run(line) == 2
    assert "  try: " in capfd.readouterr().err


# -- interruption ------------------------------------------------------------------------------------------------------


_MORE = [pytest.param(number, marks=pytest.mark.slow) for number in (signal.SIGTERM, signal.SIGKILL)]


@pytest.mark.parametrize("stop", [signal.SIGINT, *_MORE])
def test_an_interrupted_file_of_shots_goes_on(
    stop: signal.Signals, words: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    """Stopped in the middle of its second shot; run again, it makes what is missing and only that."""
    shots = [{"prompt": "one", "steps": 1}, {"prompt": "two", "steps": 900}, {"prompt": "three", "steps": 1}]
    (tmp_path / "shots.yaml").write_text(yaml.safe_dump(shots))
    line = ["generate", "--request", str(tmp_path / "shots.yaml"), *words[3:], "--out", str(tmp_path / "made")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    running = subprocess.Popen(
        [sys.executable, "-m", "anisora", *line],
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        # A suite started in the background hands down a SIGINT that is ignored; a user's shell does not.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    first = tmp_path / "made" / "shots_001.json"
    until = time.monotonic() + 300
    while not first.exists() and running.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    running.send_signal(stop)
    _, said = running.communicate(timeout=300)
    made = tmp_path / "made"
    assert sorted(path.name for path in made.iterdir()) == ["shots_001.json", "shots_001.mp4"]
    if stop != signal.SIGKILL:
        assert running.returncode == 130, said
        assert "interrupted" in said
        assert "Traceback" not in said
    before = first.stat().st_mtime_ns
    if stop == signal.SIGINT:
        assert run(line) == 0
        assert "made earlier" in capfd.readouterr().err
        assert first.stat().st_mtime_ns == before
        assert [probe(made / f"shots_00{number}.mp4").num_frames for number in (1, 2, 3)] == [9, 9, 9]
