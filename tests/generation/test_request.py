"""Requests: the same fields from flags, files and shots; what is left open filled in; what cannot be made refused."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import yaml
from PIL import Image

from anisora import settings
from anisora.errors import AnisoraError, BadImage, BadPosition, BadRequest, BadSize
from anisora.generation import prompts, recipes
from anisora.generation.request import ResolvedRequest, resolve
from anisora.generation.request_files import load_requests, parse_guide, parse_lora, parse_size, parse_upstream
from anisora.models.checkpoint import CheckpointInfo, Native, Recipe
from anisora.records import Guide, Lora, Request

INFO = CheckpointInfo(
    name="some", path=Path("some"), family="wan", capabilities=("text", "guides", "motion_area", "keep_video"),
    recipe=Recipe(steps=8, guidance=1.0, shift=5.0), native=Native(size=(128, 96), frames=33, fps=8),
    motion_score_range=(2.0, 4.0),
)  # fmt: skip


@pytest.fixture
def still(tmp_path: Path) -> Path:
    path = tmp_path / "still.png"
    Image.new("RGB", (64, 64), "red").save(path)
    return path


def resolved(request: Request, info: CheckpointInfo = INFO) -> ResolvedRequest:
    return resolve(request, info, "0" * 64)


# -- reading and writing -----------------------------------------------------------------------------------------------

FULL = Request(
    prompt="a girl", negative_prompt="", guides=(Guide("a.png", "37%", 0.5), Guide("b.png", -1)), motion_mask="m.png",
    model="x", size=(64, 48), frames=9, fps=Fraction(24000, 1001), steps=3, guidance=1.5, shift=3.0, motion_score=2.0,
    aesthetic_score=5.0, no_text=False, seed=7, recipe="draft", window=9, snap="anisora", fit="contain",
    composite=False, lora=(Lora(path="l.safetensors", scale=0.5),), out="o.mp4",
)  # fmt: skip


@pytest.mark.parametrize("request_", [FULL, Request(prompt="x"), Request(video="v.mp4", keep_mask="k.mp4")])
def test_plain_data_round_trip(request_: Request):
    data = json.loads(json.dumps(settings.plain(request_)))
    assert settings.read(Request, data) == request_
    assert settings.read(Request, settings.plain(request_, skip_defaults=True)) == request_


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"promt": "x"}, ("'promt'", "try prompt")),
        ({"prompt": 3}, ("prompt", "got 3", "expected text")),
        ({"prompt": "x", "size": [64]}, ("size", "2 values")),
        ({"prompt": "x", "frames": 9.0}, ("frames", "whole number")),
        ({"prompt": "x", "frames": True}, ("frames", "whole number")),
        ({"prompt": "x", "fps": "fast"}, ("fps", "'fast'")),
        ({"prompt": "x", "fps": 0}, ("fps", "above 0")),
        ({"prompt": "x", "steps": 0}, ("steps", "at least 1")),
        ({"prompt": "x", "guidance": float("nan")}, ("guidance", "nan")),
        ({"prompt": "x", "snap": "exct"}, ("snap", "try exact")),
        ({"prompt": "x", "guides": [{"image": "a", "when": 1}]}, ("guides[0]", "'when'")),
        ({"prompt": "x", "guides": [{"at": 1}]}, ("guides[0]", "missing", "image")),
        ({"prompt": "x", "guides": [{"image": "a", "strength": 2}]}, ("guides[0]", "strength", "got 2")),
        ({"prompt": "x", "video": "v.mp4"}, ("video without keep_mask",)),
        ({"prompt": "x", "motion_mask": "m.png"}, ("motion mask without a guide",)),
        ({}, ("empty prompt",)),
        ({"prompt": "  "}, ("empty prompt",)),
        ([1], ("keys",)),
    ],
)
def test_bad_fields_are_named(data: object, words: tuple[str, ...]):
    with pytest.raises(BadRequest) as problem:
        settings.read(Request, data, where="shots.yaml, shot 2", error=BadRequest)
    assert str(problem.value).startswith("shots.yaml, shot 2")
    for word in words:
        assert word in str(problem.value)


def test_guides_alone_need_no_prompt():
    assert Request(guides=(Guide("a.png"),)).prompt == ""


# -- words on the command line -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "image", "frame"),
    [
        ("a.png", "a.png", 0),
        ("a.png@12", "a.png", 12),
        ("a.png@-1", "a.png", -1),
        ("a.png@37%", "a.png", "37%"),
        ("a.png@1.5s", "a.png", "1.5s"),
        ("me@home/a.png", "me@home/a.png", 0),
        ("me@home/a.png@3", "me@home/a.png", 3),
        ("a@b@50%", "a@b", "50%"),
    ],
)
def test_guide_words(text: str, image: str, frame: int | str):
    assert parse_guide(text) == Guide(image, frame)


def test_a_text_that_exists_as_a_file_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, still: Path):
    monkeypatch.chdir(tmp_path)
    Path("hero@2").write_bytes(still.read_bytes())
    assert parse_guide("hero@2") == Guide("hero@2", 0)
    assert parse_guide("hero@2@5") == Guide("hero@2", 5)
    with pytest.raises(BadPosition, match="'middle'"):
        parse_guide("still.png@middle")


def test_size_and_lora_words():
    assert parse_size("832x480") == parse_size("832X480") == (832, 480)
    assert parse_lora("a.safetensors:0.5") == Lora(path="a.safetensors", scale=0.5)
    assert parse_lora("c:/a.safetensors") == Lora(path="c:/a.safetensors")
    with pytest.raises(BadRequest, match="WxH"):
        parse_size("832")


# -- files -------------------------------------------------------------------------------------------------------------

SHOTS = [{"prompt": "one", "guides": [{"image": "a.png"}]}, {"prompt": "two", "seed": 3, "out": "sub/two.mp4"}]


@pytest.mark.parametrize("kind", ["yaml", "json", "jsonl", "defaults"])
def test_file_kinds_agree_and_paths_are_relative_to_the_file(kind: str, tmp_path: Path):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    text, suffix = {
        "yaml": (yaml.safe_dump(SHOTS), "yaml"),
        "json": (json.dumps(SHOTS), "json"),
        "jsonl": ("\n".join(map(json.dumps, SHOTS)) + "\n\n", "jsonl"),
        "defaults": (yaml.safe_dump({"defaults": {"steps": 4, "seed": 9}, "shots": SHOTS}), "yml"),
    }[kind]
    path = folder / f"shots.{suffix}"
    path.write_text(text)
    one, two = load_requests(path)
    assert one.guides == (Guide(str(folder / "a.png")),)
    assert two.out == str(folder / "sub" / "two.mp4")
    assert (one.steps, two.steps) == ((4, 4) if kind == "defaults" else (None, None))
    assert (one.seed, two.seed) == ((9, 3) if kind == "defaults" else (0, 3))


def test_a_file_may_hold_one_request(tmp_path: Path):
    path = tmp_path / "shot.yaml"
    path.write_text("prompt: a girl\nguides: [{image: /a.png, at: 37%}]\n")
    assert load_requests(path) == [Request(prompt="a girl", guides=(Guide("/a.png", "37%"),))]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("s.yaml", "- prompt: x\n- promt: y\n", ("s.yaml, shot 2", "try prompt")),
        ("s.yaml", "default: {}\nshots: []\n", ("try defaults",)),
        ("s.yaml", "shots: []\n", ("no shots",)),
        ("s.json", "{", ("s.json", "parsed")),
        ("s.toml", "", (".toml", ".yaml")),
    ],
)
def test_bad_files_are_named(name: str, text: str, words: tuple[str, ...], tmp_path: Path):
    (tmp_path / name).write_text(text)
    with pytest.raises(BadRequest) as problem:
        load_requests(tmp_path / name)
    for word in words:
        assert word in str(problem.value)


def test_a_missing_file_is_told(tmp_path: Path):
    with pytest.raises(BadRequest, match="no such file"):
        load_requests(tmp_path / "none.yaml")


# -- prompt lists of the public code -----------------------------------------------------------------------------------


def test_upstream_lines(tmp_path: Path):
    text = (
        "A man. aesthetic score: 5.5. motion score: 3.0. There is no text in the video.@@a.png,b.png&&0,0.5\r\n"
        "\r\n"
        "A girl waves.@@c.png\n"
        "An anime scene.@@clip.mp4\n"
        "Only words.\\n\n"
    )
    guides, still, video, words = parse_upstream(text, tmp_path)
    assert guides.prompt == "A man."
    assert (guides.aesthetic_score, guides.motion_score, guides.no_text) == (5.5, 3.0, True)
    assert guides.guides == (Guide(str(tmp_path / "a.png"), "0%"), Guide(str(tmp_path / "b.png"), "50%"))
    assert still.guides == (Guide(str(tmp_path / "c.png"), "0%"),)
    assert (video.video, video.keep_mask) == (str(tmp_path / "clip.mp4"), str(tmp_path / "clip_mask.mp4"))
    assert words == Request(prompt="Only words.")


@pytest.mark.parametrize("line", ["x@@a.png,b.png&&0", "x@@a.png&&1.5", "x@@a.png&&later", ""])
def test_bad_upstream_lines(line: str, tmp_path: Path):
    with pytest.raises((BadPosition, BadRequest)):
        parse_upstream(line, tmp_path)


def test_the_public_prompt_files_can_be_read(shared_data: Path):
    folder = shared_data / "real_clips" / "anisora_prompts"
    counts = {path.name: len(load_requests(path)) for path in folder.glob("*.txt")}
    assert counts["inference_any.txt"] == 3
    three = load_requests(folder / "inference_any.txt")[1]
    assert [guide.frame for guide in three.guides] == ["0%", "50%", "100%"]
    assert three.motion_score == 3.0
    assert "score" not in three.prompt


# -- filling in and refusing -------------------------------------------------------------------------------------------


def test_open_fields_come_from_the_checkpoint(still: Path):
    made = resolved(Request(prompt="x", guides=(Guide(str(still)),))).request
    assert (made.frames, made.fps, made.steps, made.guidance, made.shift) == (33, 8, 8, 1.0, 5.0)
    assert made.size is not None
    assert made.size[0] == made.size[1]  # the guide is square
    assert abs(made.size[0] * made.size[1] / (128 * 96) - 1) < 0.25
    assert (made.motion_score, made.aesthetic_score, made.snap) == (3.0, 5.5, "exact")
    assert not [
        name for name in ("size", "frames", "fps", "steps", "guidance", "window") if getattr(made, name) is None
    ]
    assert resolved(Request(prompt="x")).request.size == (128, 96)


def test_resolving_twice_changes_nothing(still: Path):
    once = resolved(Request(prompt="x", guides=(Guide(str(still), "50%"),)))
    assert resolved(once.request).request == once.request
    assert resolved(once.request).request_hash == once.request_hash


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"frames": 32}, BadSize, ("29 or 33",)),
        ({"size": (100, 96)}, BadSize, ("96x96",)),
        ({"window": 10}, BadSize, ("9 or 13",)),
        ({"guides": (33,)}, BadPosition, ("frames 0 to 32", "-1 for the last")),
        ({"guides": ("9s",)}, BadPosition, ("outside",)),
        ({"guides": (16, "50%")}, BadPosition, ("two guides on one frame", "16", "50%")),
        ({"guides": (0, -33)}, BadPosition, ("two guides on one frame",)),
        ({"recipe": "drat"}, BadRequest, ("try draft",)),
        ({"prompt": "x, motion score: 3", "motion_score": 2.0}, BadRequest, ("given twice",)),
    ],
)
def test_what_cannot_be_made_names_what_can(fields: dict, error: type, words: tuple[str, ...], still: Path):
    fields = {"prompt": "x", **fields}
    fields["guides"] = tuple(Guide(str(still), frame) for frame in fields.get("guides", ()))
    with pytest.raises(error) as problem:
        resolved(Request(**fields))
    for word in words:
        assert word in str(problem.value)


def test_missing_pictures_and_capabilities(still: Path, tmp_path: Path):
    with pytest.raises(BadImage, match="does not exist"):
        resolved(Request(guides=(Guide(str(tmp_path / "none.png")),)))
    with pytest.raises(BadRequest, match="guides"):
        resolved(Request(guides=(Guide(str(still)),)), replace(INFO, capabilities=("text",)))


def test_two_guides_in_one_slot_are_refused_where_a_family_cannot_tell_them_apart(still: Path):
    request = Request(guides=(Guide(str(still), 5), Guide(str(still), 8)))
    assert resolved(request).guide_frames == (5, 8)
    with pytest.raises(BadPosition, match="5 to 8"):
        resolved(request, replace(INFO, family="cogvideox"))


def test_snapped_guides_land_on_multiples_of_eight(still: Path):
    request = Request(guides=(Guide(str(still), 13),), snap="anisora")
    assert resolved(request).guide_frames == (16,)


# -- the hash ----------------------------------------------------------------------------------------------------------


def test_the_hash_goes_by_content(still: Path, tmp_path: Path):
    request = Request(prompt="x", guides=(Guide(str(still)),), out="a.mp4")
    moved = tmp_path / "moved.png"
    moved.write_bytes(still.read_bytes())
    first = resolved(request).request_hash
    assert resolved(replace(request, guides=(Guide(str(moved)),), out="b.mp4")).request_hash == first
    assert resolve(request, INFO, "1" * 64).request_hash != first
    assert resolved(replace(request, seed=1)).request_hash != first
    Image.new("RGB", (64, 64), "blue").save(still)
    assert resolved(request).request_hash != first


def test_said_or_left_open_is_one_hash(still: Path):
    """A request that spells the defaults out is the same request."""
    request = Request(prompt="x", guides=(Guide(str(still)),))
    spelled = replace(request, frames=33, steps=8, guidance=1.0, recipe="default")
    assert resolved(request).request_hash == resolved(spelled).request_hash


# -- prompts and recipes -----------------------------------------------------------------------------------------------


def test_prompts_follow_the_family():
    request = Request(prompt="she turns", motion_score=2.5)
    wan = prompts.compose(request, "wan", motion_score_range=(2, 4))
    assert wan.prompt == "she turns. aesthetic score: 5.5. motion score: 2.5. There is no text in the video."
    cog = prompts.compose(request, "cogvideox", motion_score_range=(0.5, 1.5))
    assert cog.prompt == "she turns. aesthetic score: 5.5. motion score: 2.5."
    stock = prompts.compose(Request(prompt="she turns"), "wan")
    assert stock.prompt == "she turns."
    assert "subtitles" in stock.negative


def test_prompts_say_nothing_twice():
    typed = Request(prompt="x. motion score: 1.0. There is no text in the video.")
    text = prompts.compose(typed, "wan", motion_score_range=(2, 4))
    assert text.prompt.count("motion score") == text.prompt.count("no text") == 1
    assert text.motion_score is None


def test_a_checkpoints_own_negative_prompt_wins():
    assert prompts.compose(Request(prompt="x"), "wan", negative_prompt="").negative == ""
    assert prompts.compose(Request(prompt="x", negative_prompt="blur"), "wan", negative_prompt="").negative == "blur"


def test_fields_beat_recipes_beat_the_checkpoint():
    own = Recipe(steps=40, guidance=5.0, shift=5.0, sampler="unipc")
    assert recipes.choose(Request(prompt="x"), own) == own
    draft = recipes.choose(Request(prompt="x", recipe="draft"), own)
    assert (draft.steps, draft.guidance, draft.sampler) == (10, 5.0, "unipc")
    assert recipes.choose(Request(prompt="x", recipe="draft", steps=3), own).steps == 3


def test_every_error_is_ours(still: Path):
    """What a user gets wrong is never a bare Python error."""
    with pytest.raises(AnisoraError):
        resolved(Request(prompt="x", guides=(Guide(str(still), "sometime"),)))
