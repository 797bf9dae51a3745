"""The training loop as the scorers of evaluation are handed it: training and evaluation do not import each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anisora.evaluation.finetuning import Plan


def fit(plan: Plan) -> bool:
    """Takes the steps of a plan with `training.loop`, which resumes, and leaves the averaged weights in its modules.

    False when time or a signal ended it early. Raises what the loop raises, and BadConfig where another run is under way.
    """
    from anisora.training.loop import LoopSettings, Task, load_averaged, locked, train

    task = Task(name=plan.name, modules=plan.modules, loss=plan.loss, samples_per_step=plan.batch)
    settings = LoopSettings(
        steps=plan.steps,
        learning_rate=plan.learning_rate,
        warmup_steps=plan.warmup_steps,
        weight_decay=plan.weight_decay,
        betas=(0.9, 0.999),
    )
    with locked(plan.folder):
        if not train(task, settings, plan.folder, seed=plan.seed, max_minutes=plan.max_minutes):
            return False
        load_averaged(plan.folder, plan.modules)
    return True
