"""`dvc repro` with what `aclora check` refuses: DVC deletes a stage's outs before it starts the stage."""

import dataclasses
import random
from collections.abc import Iterator

from tests.trials.case import CHECK, Case
from tests.trials.cases import captions, modules, names, networks, pictures, values, yaml_file

KIND = "dvc repro, with every out still there"
REPRO = ("dvc", "repro")
# Of each kind, these always, and so many more drawn from the seed: 72 together.
FIXED = {
    values: (
        "evaluate.held_out: 1",
        "train.resolution: 12",
        "aclora.max_rank: 65",
        "audit.loss_rise: .inf",
        "generate.guidance_scale: many",
        "captions.max_new_tokens: many",
        "data.share: many",
        "checkpoints.every: null",
        "model.family: flux",
        "method: lroa",
    ),
    yaml_file: ("styles: {}", "tabs for indentation", "a value that holds itself", "train.epochs: 3 twice"),
    names: ("1 without quotes",),
    pictures: ("the folder is missing", "30000 × 30000 pixels"),
    captions: ("13.txt beside them",),
    networks: ("the folder tokenizer is missing", "clip/model.safetensors cut in half"),
    modules: ("evaluate.figures: a module that raises",),
}
DRAWN = {values: 21, yaml_file: 7, names: 6, pictures: 5, captions: 2, networks: 3, modules: 2}


def cases(seed: int = 0) -> Iterator[Case]:
    rng = random.Random(seed)
    for module, fixed in FIXED.items():
        refused = {case.name: case for case in module.cases() if case.answer == "error" and case.command == CHECK}
        always = [next(case for name, case in refused.items() if name.startswith(start)) for start in fixed]
        if module is names:  # what reaches a shell
            always += [case for name, case in refused.items() if "touch" in name][:5]
        # DVC itself opens what a stage depends on, and waits for ever at a pipe or a device
        endless = {name for name in refused if "named pipe" in name or "holds a pipe" in name or "device" in name}
        others = [case for name, case in refused.items() if case not in always and name not in endless]
        for case in [*always, *rng.sample(others, DRAWN[module])]:
            yield dataclasses.replace(case, command=REPRO)
