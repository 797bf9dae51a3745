"""Galleries: characters drawn and cut out, features that come back, files and networks that are wrong, a run broken off."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anisora.errors import BadCheckpoint, BadInput
from anisora.evaluation import characters, gallery
from anisora.evaluation.identity import EMBEDDED, features, load_encoder
from anisora.serving.cli import run

SIDE_PX = 32
_VISION = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": SIDE_PX, "patch_size": 8,
}  # fmt: skip


def write_encoder(folder: Path, family: str, seed: int = 0) -> Path:
    """A small random encoder in the layout in which the real ones are published."""
    import torch
    import transformers as hf

    torch.manual_seed(seed)
    size = {"height": SIDE_PX, "width": SIDE_PX}
    model, processor = {
        "clip": lambda: (
            hf.CLIPVisionModel(hf.CLIPVisionConfig(**_VISION, intermediate_size=16)),
            hf.CLIPImageProcessor(size={"shortest_edge": SIDE_PX}, crop_size=size),
        ),
        "siglip": lambda: (
            hf.SiglipVisionModel(hf.SiglipVisionConfig(**_VISION, intermediate_size=16)),
            hf.SiglipImageProcessor(size=size),
        ),
        "dinov2": lambda: (
            hf.Dinov2Model(hf.Dinov2Config(**_VISION, mlp_ratio=1)),
            hf.BitImageProcessor(size={"shortest_edge": 36}, crop_size=size),
        ),
    }[family]()  # fmt: skip
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("encoder") / "clip", "clip")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three drawn characters, cut out."""
    out = tmp_path_factory.mktemp("drawn")
    characters.draw_characters(3, out)
    return out


@pytest.fixture
def built(drawn: Path, clip: Path, tmp_path: Path) -> gallery.Gallery:
    return gallery.build(tmp_path, characters.known(drawn), str(clip))[0]


def test_drawn_characters_are_the_same_again_and_have_an_outline(drawn, tmp_path):
    again = characters.draw_characters(3, tmp_path)
    assert [line["key"] for line in again] == [line["key"] for line in characters.draw_characters(3, drawn)]
    for line in again:
        assert line["reason"] is None
        for file in line["files"]:
            assert (tmp_path / file).read_bytes() == (drawn / file).read_bytes()
    cuts = characters.known(tmp_path)
    assert len({cut.character for cut in cuts}) == 3
    assert all(0.05 < (gallery.read(cut).max(-1) > 8).mean() < 0.9 for cut in cuts)


@pytest.mark.parametrize("family", ["clip", "siglip", "dinov2"])
def test_encoders_are_opened_and_saved_as_they_are_published(family, drawn, tmp_path):
    pictures = [gallery.read(cut) for cut in characters.known(drawn)[:5]]
    encoder = load_encoder(write_encoder(tmp_path / "given", family))
    found = features(encoder, pictures)
    assert found.shape == (5, 16)
    assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(5), abs=1e-5)
    encoder.save(tmp_path / "saved")
    assert np.array_equal(features(load_encoder(tmp_path / "saved"), pictures), found)


def test_the_embedded_encoder_knows_drawn_characters_again_and_is_saved(drawn, tmp_path):
    cuts = characters.known(drawn)
    said = gallery.figures_of(cuts, EMBEDDED)
    assert said["accuracy"]["mean"] > 0.6 > said["chance"]
    assert said["auc"] > 0.85
    encoder = load_encoder(EMBEDDED)
    encoder.save(tmp_path)
    pictures = [gallery.read(cut) for cut in cuts[:3]]
    assert np.array_equal(features(load_encoder(tmp_path), pictures), features(encoder, pictures))
    # What is black is not the figure: more of it around changes little.
    wide = np.pad(pictures[0], ((56, 56), (56, 56), (0, 0)))
    near, far = (features(encoder, [picture])[0] @ features(encoder, [other])[0]
                 for picture, other in ((pictures[0], wide), (pictures[0], gallery.read(cuts[-1]))))  # fmt: skip
    assert near > far


def test_a_gallery_comes_back_as_it_was(built, tmp_path, clip):
    back = gallery.load(tmp_path)
    assert back.facts == built.facts
    assert np.array_equal(back.features_ND, built.features_ND)
    assert np.array_equal(back.labels_N, built.labels_N)
    assert gallery.networks(back, tmp_path) == (str(clip), None)
    assert b"pickle" not in (tmp_path / characters.GALLERY).read_bytes()


@pytest.mark.parametrize(
    "change",
    [
        lambda g: replace(g, features_ND=2 * g.features_ND),
        lambda g: replace(g, features_ND=np.full_like(g.features_ND, np.nan)),
        lambda g: replace(g, features_ND=g.features_ND.astype(np.float64)),
        lambda g: replace(g, features_ND=g.features_ND[:-1]),
        lambda g: replace(g, labels_N=g.labels_N + 1),
        lambda g: replace(g, facts=replace(g.facts, schema=9)),
        lambda g: replace(g, facts=replace(g.facts, names=g.facts.names[:-1])),
        lambda g: replace(g, facts=replace(g.facts, names=("a", "a", "b"))),
    ],
)
def test_galleries_with_wrong_numbers_are_refused(built, tmp_path, change):
    gallery.save(change(built), tmp_path)
    with pytest.raises(BadInput, match="not a gallery"):
        gallery.load(tmp_path)


def test_what_is_no_gallery_is_refused_and_never_run(built, tmp_path):
    path = tmp_path / characters.GALLERY
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"no gallery", pickle.dumps({"features": 1})):
        path.write_bytes(content)
        with pytest.raises(BadInput, match="not a gallery"):
            gallery.load(tmp_path)
    with pytest.raises(BadInput, match="does not exist"):
        gallery.load(tmp_path / "elsewhere")


def test_another_encoder_than_the_gallerys_is_refused(drawn, tmp_path):
    encoder = write_encoder(tmp_path / "clip", "clip")
    built, _ = gallery.build(tmp_path, characters.known(drawn)[:4], str(encoder))
    assert built.facts.encoder == "clip"  # inside the folder: the two can be moved together
    write_encoder(tmp_path / "clip", "clip", seed=1)
    with pytest.raises(BadCheckpoint, match="not the one of the gallery"):
        gallery.networks(built, tmp_path)
    with pytest.raises(BadCheckpoint, match="is gone"):
        gallery.networks(built, tmp_path / "elsewhere")


def test_encoders_that_lack_tensors_or_are_none_are_refused(tmp_path):
    from safetensors.numpy import load_file, save_file

    folder = write_encoder(tmp_path / "clip", "clip")
    weights = load_file(folder / "model.safetensors")
    save_file(dict(list(weights.items())[1:]), folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(BadCheckpoint):
        load_encoder(folder)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(BadCheckpoint, match="llama"):
        load_encoder(tmp_path)
    with pytest.raises(BadCheckpoint):
        load_encoder(tmp_path / "gone")
    load_encoder(EMBEDDED).save(tmp_path / "own")
    (tmp_path / "own" / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(BadCheckpoint, match="cannot be opened"):
        load_encoder(tmp_path / "own")


def test_a_run_that_was_broken_off_goes_on(drawn, tmp_path):
    def stop(phase: str, done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        characters.draw_characters(3, tmp_path, progress=stop)
    made = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")}
    assert 0 < len(made) < 36
    with (tmp_path / characters.CUTOUTS).open("a") as file:
        file.write('{"key": "to')  # as a crash leaves it
    characters.draw_characters(3, tmp_path)
    assert (tmp_path / characters.CUTOUTS).read_bytes() == (drawn / characters.CUTOUTS).read_bytes()
    assert {path: path.stat().st_mtime_ns for path in made} == made
    lost = next(iter(made))
    lost.unlink()
    characters.draw_characters(3, tmp_path)
    assert lost.is_file()


# -- a folder of one's own ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two characters on paper, one of them in a clip too, with a picture of nothing and one that is none."""
    from anisora.media.writer import write_video

    root = tmp_path_factory.mktemp("characters")
    for name, color in (("red", (210, 40, 40)), ("blue", (40, 60, 200))):
        (root / name).mkdir()
        for number in range(2):
            Image.fromarray(figure(color, 60 + 20 * number)).save(root / name / f"{number}.png")
    write_video(root / "red" / "clip.mp4", np.stack([figure((210, 40, 40), 50 + 6 * t) for t in range(4)]), 8)
    Image.fromarray(np.full((96, 128, 3), 240, np.uint8)).save(root / "blue" / "paper.png")
    (root / "blue" / "broken.png").write_bytes(b"no picture")
    (root / "notes.txt").write_text("not a character")
    return root


def figure(color: tuple[int, int, int], x: int) -> np.ndarray:
    """A head and a body before a wall."""
    rows, columns = np.mgrid[:128, :160]
    picture = np.full((128, 160, 3), 235, np.uint8)
    picture[(rows - 40) ** 2 + (columns - x) ** 2 < 18**2] = (250, 210, 180)
    picture[(np.abs(columns - x) < 16) & (rows > 56) & (rows < 112)] = color
    return picture


def test_a_folder_of_characters_is_cut_out_and_tells_what_it_could_not_use(folder, clip, tmp_path, capsys):
    out = tmp_path / "gallery"
    words = ["evaluate", "gallery", str(folder), "--encoder", str(clip), "--out", str(out), "--json"]
    assert run(words) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["characters"] == ["blue", "red"]
    reasons = {line["source"]: line["reason"] for line in said["without"]}
    assert reasons == {"blue/paper.png": "no_character", "blue/broken.png": "unreadable"}
    assert said["gallery"]["accuracy"]["n"] == 2
    cuts = characters.known(out)
    assert len([cut for cut in cuts if cut.source == "red/clip.mp4"]) == 4
    for cut in cuts:
        lit = gallery.read(cut).astype(int)
        body = lit[CENTRE]
        assert np.argmax(np.median(body, axis=(0, 1))) == (0 if cut.character == "red" else 2)
    page = (out / gallery.PAGE).read_text()
    assert "blue/paper.png" in page
    assert page.count("<img") == len(cuts)

    before = (out / characters.CUTOUTS).read_bytes()
    (out / characters.DROP).write_text(cuts[0].path.stem)
    assert run(words) == 0
    assert (out / characters.CUTOUTS).read_bytes() == before
    assert len(gallery.load(out).features_ND) == len(cuts) - 1
    (out / characters.DROP).write_text("nobody")
    assert run(words) == 2
    assert "nobody" in capsys.readouterr().err


CENTRE = (slice(130, 180), slice(92, 132))


@pytest.mark.parametrize("content", ["nothing", "empty", "paper"])
def test_folders_without_characters_are_refused(content, tmp_path, capsys):
    root = tmp_path / "characters"
    if content != "nothing":
        (root / "nobody").mkdir(parents=True)
    if content == "paper":
        Image.fromarray(np.full((64, 64, 3), 240, np.uint8)).save(root / "nobody" / "paper.png")
    assert run(["evaluate", "gallery", str(root), "--out", str(tmp_path / "out")]) == 2
    assert "expected" in capsys.readouterr().err
    assert not (tmp_path / "out" / characters.GALLERY).exists()


def test_a_gallery_without_characters_is_for_input_pictures(clip, tmp_path, capsys):
    assert run(["evaluate", "gallery", "--encoder", str(clip), "--out", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["characters"] == []
    assert gallery.load(tmp_path).facts.names == ()
    assert run(["evaluate", "gallery", "--fine-tune", "5", "--out", str(tmp_path)]) == 2
    assert run(["evaluate", "gallery", "folder", "--drawn", "5", "--out", str(tmp_path)]) == 2
