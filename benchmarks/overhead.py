"""What the pipelines cost beside the networks, what the command costs beside nothing: ratios, never tests.

    python benchmarks/overhead.py --json
    python benchmarks/overhead.py --model path/to/checkpoint --size 128 --frames 33

bare    the calls of the networks that one shot makes (text, encode, forwards, decode), recorded and made again by
        themselves; `over_bare` is the shot's CPU time over theirs, less 1
stock   the stock diffusers pipeline on the same checkpoint, with the same picture, prompt and noise; `over_stock` is
        ours over theirs. The guide decoder, which stock does not have, is off in both
command `anisora --help`, `import anisora`, and one whole `anisora generate`, loading included

CPU time of the process, alternating, median of the ratios: other work on the machine then matters least.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ALTERNATIONS = 5
PROMPT = "a girl with red hair turns and waves"
HEAVY = ("torch", "diffusers", "transformers", "cv2", "av", "numpy", "PIL")


def main() -> None:
    options = parse()
    result: dict[str, Any] = {"benchmark": "overhead/1", "model": options.model}
    if "pipeline" in options.only:
        result |= pipeline_figures(options)
    if "command" in options.only:
        result |= command_figures(options)
    print(json.dumps(result, indent=2) if options.json else "\n".join(f"{k}: {v}" for k, v in result.items()))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="bundled", metavar="NAME_OR_PATH")
    parser.add_argument("--size", type=int, default=128, metavar="PX", help="side of the square shot")
    parser.add_argument("--frames", type=int, default=33)
    parser.add_argument("--steps", type=int, help="default: the checkpoint's recipe")
    parser.add_argument("--only", nargs="+", default=["pipeline", "command"], choices=["pipeline", "command"])
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    return parser.parse_args()


# ------------------------------------------------------------------------------------------------------- the pipeline


def pipeline_figures(options: argparse.Namespace) -> dict[str, Any]:
    """`over_bare`, `over_stock` and the largest difference of both pipelines' frames."""
    import numpy as np
    import torch

    from anisora import Guide
    from anisora.generation.runner import Session
    from anisora.models import catalog

    info = catalog.resolve(options.model)
    ours, _ = Session().pipeline(options.model)
    stock = ours.stock_class.from_pretrained(info.path, dtype=ours.transformer.dtype).to(ours.device)
    stock.scheduler = ours.scheduler  # the recipe's sampler and shift
    stock.set_progress_bar_config(disable=True)
    picture = picture_of(options.size)
    steps = options.steps or info.recipe.steps
    shape = {"height": options.size, "width": options.size, "num_frames": options.frames, "num_inference_steps": steps}
    shape |= {"guidance_scale": info.recipe.guidance, "output_type": "np", "negative_prompt": ""}
    if info.family == "wan":
        shape["max_sequence_length"] = info.max_text_tokens

    def shoot_ours() -> Any:
        guides = [Guide(picture)]
        return ours(PROMPT, guides=guides, generator=torch.Generator().manual_seed(0), **shape).frames

    def shoot_stock() -> Any:
        return stock(picture, PROMPT, generator=torch.Generator().manual_seed(0), **shape).frames

    with recorded_calls(ours) as calls:
        shoot_ours()

    @torch.no_grad()
    def bare() -> None:
        for function, args, kwargs in calls:
            function(*args, **kwargs)

    figures: dict[str, Any] = {"steps": steps, "network_calls": len(calls)}
    figures["over_bare"] = ratios(shoot_ours, bare, minus=1.0)
    decoder, ours.guide_decoder = ours.guide_decoder, None
    figures["over_stock"] = ratios(shoot_ours, shoot_stock)
    figures["largest_difference_to_stock"] = float(np.abs(np.asarray(shoot_ours()) - np.asarray(shoot_stock())).max())
    ours.guide_decoder = decoder
    return figures


def picture_of(size_px: int) -> Any:
    """A soft colour field with one disc."""
    import numpy as np
    from PIL import Image

    y, x = np.mgrid[:size_px, :size_px] / size_px
    disc = ((x - 0.5) ** 2 + (y - 0.6) ** 2 < 0.05)[..., None]
    field = np.stack([x, y, 1 - x], axis=-1) * 200 + 30
    return Image.fromarray(np.where(disc, [240, 220, 60], field).astype(np.uint8))


@contextmanager
def recorded_calls(pipeline: Any) -> Any:
    """The network calls that a pipeline makes inside the block, as (function, args, kwargs), in order."""
    calls: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = []
    spied = []

    def spy(owner: Any, name: str) -> None:
        function = getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            calls.append((function, args, kwargs))
            return function(*args, **kwargs)

        setattr(owner, name, call)
        spied.append((owner, name))

    for part in ("text_encoder", "image_encoder", "transformer", "transformer_2"):
        if (owner := getattr(pipeline, part, None)) is not None:
            spy(owner, "forward")
    spy(pipeline.vae, "encode")
    spy(pipeline.vae, "decode")
    if pipeline.guide_decoder is not None:
        spy(pipeline.guide_decoder, "refine")
    try:
        yield calls
    finally:
        for owner, name in spied:
            delattr(owner, name)  # the instance's attribute; the class's method shows again


def ratios(ours: Callable[[], object], theirs: Callable[[], object], minus: float = 0.0) -> dict[str, Any]:
    """The median of ours over theirs in CPU time, taken in turns after one unmeasured turn each."""
    ours(), theirs()
    pairs = [(cpu_seconds(ours), cpu_seconds(theirs)) for _ in range(ALTERNATIONS)]
    found = [a / b - minus for a, b in pairs]
    return {
        "median": statistics.median(found),
        "all": found,
        "ours_cpu_s": statistics.median(a for a, _ in pairs),
        "theirs_cpu_s": statistics.median(b for _, b in pairs),
    }


def cpu_seconds(work: Callable[[], object]) -> float:
    begin = time.process_time()
    work()
    return time.process_time() - begin


# -------------------------------------------------------------------------------------------------------- the command


def command_figures(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of `anisora --help` and `import anisora`, what the import brings, and one whole `anisora generate`."""
    anisora = [sys.executable, "-m", "anisora"]
    imported = subprocess.run(
        [sys.executable, "-c", f"import sys, anisora; print([m for m in {HEAVY} if m in sys.modules])"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return {
        "help_s": statistics.median(wall_seconds([*anisora, "--help"]) for _ in range(ALTERNATIONS)),
        "import_s": statistics.median(
            wall_seconds([sys.executable, "-c", "import anisora"]) for _ in range(ALTERNATIONS)
        ),
        "bare_python_s": statistics.median(wall_seconds([sys.executable, "-c", ""]) for _ in range(ALTERNATIONS)),
        "import_brings": json.loads(imported.stdout.replace("'", '"')),
        "generate": generate_figures(anisora, options),
    }


def generate_figures(anisora: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """Wall seconds and peak memory of one `anisora generate` in a process of its own, and what it says of itself."""
    with tempfile.TemporaryDirectory() as scratch:
        picture_of(options.size).save(Path(scratch) / "guide.png")
        command = [*anisora, "generate", "--prompt", PROMPT, "--guide", "guide.png", "--out", "shot.mp4", "--json"]
        command += ["--size", f"{options.size}x{options.size}", "--frames", str(options.frames)]
        model = str(Path(options.model).absolute()) if Path(options.model).is_dir() else options.model
        begin = time.perf_counter()
        done = subprocess.run([*command, "--model", model], cwd=scratch, capture_output=True, text=True)
        seconds = time.perf_counter() - begin
        if done.returncode:
            return {"failed": done.stderr.strip().splitlines()[-1:]}
        said = json.loads(done.stdout)
    scale = 1 if sys.platform == "darwin" else 1024
    return {
        "wall_s": seconds,
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * scale,
        "cores": os.cpu_count(),
        "seconds": said["seconds"],
        "forwards": said["forwards"],
    }


def wall_seconds(command: list[str]) -> float:
    begin = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
