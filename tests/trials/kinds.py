"""All kinds of trials, in the order of the table, and which of the listed cases are tried."""

import random

from tests.trials import kills
from tests.trials.case import Case
from tests.trials.cases import (
    adapters,
    captions,
    commands,
    fuzz,
    headers,
    modules,
    names,
    networks,
    outs,
    pictures,
    typos,
    values,
    yaml_file,
)

# How many of a list are drawn from the seed; None: all of it.
LISTED = {
    values: 160,
    yaml_file: 120,
    names: 70,
    pictures: 120,
    captions: 90,
    networks: 90,
    adapters: 80,
    headers: 60,
    outs: 60,
    modules: 60,
    commands: 90,
}
Trial = Case | kills.Chain


def chosen(seed: int, every: bool, only: list[str] | None, name: str | None) -> dict[str, list[Trial]]:
    """The trials of every kind, or of those whose name begins with one of `only`, or those whose name holds `name`."""
    rng, found = random.Random(seed), {}
    for module, count in LISTED.items():
        cases = list({case.name: case for case in module.cases()}.values())
        drawn = sorted(rng.sample(range(len(cases)), min(count, len(cases))))
        found[module.KIND] = cases if every or name else [cases[i] for i in drawn]
    found |= {module.KIND: list(module.cases(seed)) for module in (fuzz, typos)}
    chains = kills.chains(seed)
    found |= {f"kills, {stage}": [c for c in chains if c.stage == stage] for stage in kills.STAGES}
    if only:
        found = {kind: trials for kind, trials in found.items() if kind.startswith(tuple(only))}
    if name:
        found = {kind: [trial for trial in trials if name in trial.name] for kind, trials in found.items()}
    return {kind: trials for kind, trials in found.items() if trials}
