"""What a training step costs beside the network's own work, and how near that work comes to the machine's ceiling.

    python benchmarks/training.py --json
    python benchmarks/training.py --model path/to/checkpoint --method full --size 128 --frames 17 --batch 4
    python benchmarks/training.py --shards data/curated

bare      forward, backward and optimiser step of the network alone, on the inputs of a real step, made again by themselves
loop      a step of `anisora train` from a cache, from one step's begin to the next one's: reading, noise, loss, clipping,
          averaging, logging, progress and bare; starting and saving are not in it. `over_bare` is loop / bare - 1
online    the same step when clips are decoded and conditions encoded as it goes; `over_cached` is online / loop - 1
waiting   seconds that a step waits for its clips, over its seconds, from a cache, a folder of videos, shards
ceiling   operations a second of a large matrix product on the same device, in the same precision, by the same clock

CPU time of the process and one torch thread on CPUs, wall time on accelerators; the median of the steps of a run, runs in
turns, the median of their ratios. Waiting is wall time on either: on a machine that does other work too, reading ahead may
not get its turn.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any


def main() -> None:
    options = parse()
    import torch

    from anisora.generation.runner import hush_libraries

    hush_libraries()
    if options.device == "cpu":
        torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        result = {"benchmark": "training/1", **vars(options), **figures(options, Path(folder))}
    print(json.dumps(result, indent=2) if options.json else "\n".join(f"{k}: {v}" for k, v in result.items()))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="bundled", metavar="NAME_OR_PATH")
    parser.add_argument("--method", default="lora", choices=["lora", "full"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="auto", choices=["auto", "float32", "bfloat16"])
    parser.add_argument("--size", type=int, default=96, metavar="PX", help="side of the square clips")
    parser.add_argument("--frames", type=int, default=17)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--clips", type=int, default=8, help="drawn clips in the folder")
    parser.add_argument("--steps", type=int, default=10, help="steps of each run that count")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shards", metavar="DIR", help="what `anisora curate` made: waiting for it is measured too")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    return parser.parse_args()


def figures(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All figures of one model and shape."""
    from anisora.generation import planner
    from anisora.models.checkpoint import read_json
    from anisora.training import budget

    clock = clock_of(options.device)
    draw_clips(options, folder / "clips")
    config = config_of(options, folder)
    begun = clock()
    tasks, network, cost = tasks_of(config)
    starting_s = clock() - begun
    bare, tokens = bare_step(config, network, tasks["online"])
    bare()
    rounds: dict[str, list[float]] = {"bare": [], "loop": [], "online": [], "ceiling": []}
    for number in range(options.rounds):
        rounds["ceiling"].append(ceiling(config, clock))
        rounds["bare"].append(statistics.median(timed(clock, bare, 1) for _ in range(options.steps)))
        for name in ("loop", "online"):
            rounds[name].append(step_seconds(tasks[name], config, folder / f"{name}{number}", options.steps, clock))
    info = read_json(Path(network.info.path) / "transformer" / "config.json")
    sizes = planner.network_of(info, text_tokens=network.info.max_text_tokens)
    flops = budget.passes_of(config) * options.batch * planner.forward_flops(sizes, tokens // options.batch)
    seconds = {name: statistics.median(values) for name, values in rounds.items() if name != "ceiling"}
    ratio = {
        name: statistics.median(a / b for a, b in zip(rounds[over], rounds[under], strict=True)) - 1
        for name, over, under in (("over_bare", "loop", "bare"), ("over_cached", "online", "loop"))
    }
    rate = statistics.median(rounds["ceiling"])
    waiting = {"cache": waited(folder, "loop", options.rounds), "folder": waited(folder, "online", options.rounds)}
    if options.shards:
        data = replace(config.data, videos=None, shards=Path(options.shards), caption="a clip")
        task = tasks_of(replace(config, data=data, cache=None))[0]["online"]
        step_seconds(task, config, folder / "shards0", options.steps, clock)
        waiting["shards"] = waited(folder, "shards", 1)
    return {
        "clock": "CPU seconds of the process" if options.device == "cpu" else "wall seconds",
        "tokens_a_step": tokens,
        "seconds_a_step": seconds,
        "tokens_a_second": {name: tokens / value for name, value in seconds.items()},
        "ceiling_flops_a_second": rate,
        "share_of_ceiling": {name: flops / value / rate for name, value in seconds.items()},
        **ratio,
        "of_rounds": rounds,
        "waiting_share": waiting,
        "starting_s": starting_s,
        "cache": str(cost),
    }


def clock_of(device: str) -> Callable[[], float]:
    """CPU seconds of this process, or wall seconds with the accelerator's work done."""
    if device == "cpu":
        return time.process_time
    import torch

    def now() -> float:
        torch.accelerator.synchronize()
        return time.perf_counter()

    return now


def draw_clips(options: argparse.Namespace, folder: Path) -> None:
    """Drawn clips a little longer than a step reads, so that there are windows to choose from; captions beside them."""
    from anisora.media.writer import write_video
    from anisora.synthetic import render_clip

    folder.mkdir()
    for index in range(options.clips):
        clip = render_clip(0, index, n_frames=options.frames + 8, fps=16, size_px=(options.size, options.size))
        write_video(folder / f"{index}.mp4", clip.video_THWC, 16)
        (folder / f"{index}.txt").write_text(clip.caption)


def config_of(options: argparse.Namespace, folder: Path) -> Any:
    """The run that is measured; its cache lies beside it, so that all of them read the same one."""
    from anisora.training import finetune

    data: dict[str, Any] = {
        "output": str(folder / "run"),
        "method": options.method,
        "model": options.model,
        "device": options.device,
        "precision": options.precision,
        "data": {"videos": str(folder / "clips"), "sizes": [[options.size] * 2], "frames": [options.frames], "fps": 16},
        "cache": {"variants": 2, "folder": str(folder / "cache")},
        "loop": {"log_every_steps": 1, "save_every_minutes": 1e6},
    }  # fmt: skip
    data["data"]["batch"] = options.batch
    return finetune.load_config(data, "the benchmark")


def tasks_of(config: Any) -> tuple[dict[str, Any], Any, Any]:
    """({"loop": from the cache, "online": without it}, the backbone that both train, what filling the cache cost)."""
    from anisora.training import finetune
    from anisora.training.cache import Cache
    from anisora.training.parallel import World

    world = World(device=finetune.runtime.own_device(config.device))
    backbone = finetune._backbone(config, world.device)
    trained = finetune.with_trained(backbone, config)
    course = finetune.open_course(config, backbone.info.strides, backbone.info.native)
    tasks = {"online": finetune.fine_tune_task(backbone, trained, course, config, world)}
    cost = None
    if config.cache:
        cache = Cache(config.cache, backbone, config.conditions, seed=config.seed, folder=config.output / "cache")
        cost = cache.fill(course.data, world)
        tasks["loop"] = finetune.fine_tune_task(backbone, trained, course, config, world, cache)
    return tasks, backbone, cost


def step_seconds(task: Any, config: Any, out: Path, steps: int, clock: Callable[[], float]) -> float:
    """Seconds from the begin of a step to that of the next, the median of a run; the first two, in which torch sets
    itself up, are not in it."""
    from anisora.training.loop import train

    begins: list[float] = []

    def loss(step: int, generator: Any) -> Any:
        begins.append(clock())
        yield from task.loss(step, generator)

    out.parent.mkdir(parents=True, exist_ok=True)
    assert train(replace(task, loss=loss), replace(config.loop, steps=steps + 3), out, seed=config.seed)
    return statistics.median(b - a for a, b in pairwise(begins[2:]))


def bare_step(config: Any, backbone: Any, task: Any) -> tuple[Callable[[], None], int]:
    """(a step of the network alone, its video tokens), on the inputs of the task's first step."""
    import torch

    from anisora.training import finetune
    from anisora.training.loop import build_optimisers

    calls: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = []

    def heard(network: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls.append((network, args, kwargs))

    hooks = [module.register_forward_pre_hook(heard, with_kwargs=True) for module in task.modules.values()]
    _, heard_figures = next(iter(task.loss(0, torch.Generator().manual_seed(0))))
    for hook in hooks:
        hook.remove()
    ((network, args, kwargs),) = calls
    named = {f"{part}.{n}": p for part, m in task.modules.items() for n, p in m.named_parameters() if p.requires_grad}
    optimisers = build_optimisers(named, task, config.loop)
    in_bfloat16 = finetune._in_bfloat16(config, backbone.device)

    def step() -> None:
        with torch.autocast(backbone.device.type, torch.bfloat16, enabled=in_bfloat16):
            predicted = network(*args, **kwargs)[0]
        predicted.float().square().mean().backward()
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

    return step, heard_figures["tokens"]


def timed(clock: Callable[[], float], work: Callable[[], None], times: int) -> float:
    """Seconds of one call."""
    begun = clock()
    for _ in range(times):
        work()
    return (clock() - begun) / times


def ceiling(config: Any, clock: Callable[[], float]) -> float:
    """Operations a second of a large matrix product: the best of five, by the benchmark's clock."""
    import torch

    from anisora.training import finetune

    device = finetune.runtime.own_device(config.device)
    dtype = torch.bfloat16 if finetune._in_bfloat16(config, device) else torch.float32
    side = 512 if device.type == "cpu" else 8192
    a, b = (torch.ones(side, side, device=device, dtype=dtype) for _ in range(2))
    return max(2 * side**3 / timed(clock, lambda: (a @ b).sum().item(), 4) for _ in range(5))


def waited(folder: Path, name: str, rounds: int) -> float:
    """Share of the seconds of steps that went into waiting for clips; a run's first, which nothing precedes, is not in it."""
    rows = [
        json.loads(line)
        for number in range(rounds)
        for path in sorted(folder.glob(f"{name}{number}/log.jsonl"))
        for line in path.read_text().splitlines()
    ]
    rows = [row for row in rows if row["step"] > 0]
    return sum(row["wait_s"] for row in rows) / sum(row["seconds"] for row in rows)


if __name__ == "__main__":
    main()
