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

# How many of a list are drawn from the seed: as many as fit into a quarter of an hour with the rest.
LISTED = {
    values: 100,
    yaml_file: 80,
    names: 50,
    pictures: 80,
    captions: 60,
    networks: 60,
    adapters: 60,
    headers: 40,
    outs: 40,
    modules: 40,
    commands: 50,
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
