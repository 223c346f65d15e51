"""AC-LoRA on a language model: a tiny Llama learns a second way of writing and is judged by its perplexity.

    python -m examples.language_model            # half a minute on two cores

Two small grammars write the text. A Llama of two layers with random weights first learns harbour tales; then LoRA
adapters of PEFT learn from a few lines of a ship's log: without RESTART, and with RESTART every E epochs, on the
factors and on the product. The table shows the perplexity (of a word; lower is better) on other lines of the log, and
on tales, which the model should not forget: the mean over seeds, and in brackets the lowest and the highest.

The loss of a language model is not below one. The threshold therefore takes it relative to guessing,
loss / ln(vocabulary). That is our choice: the paper has losses on pictures only.
"""

import argparse
import copy
import math
import random
from collections.abc import Collection, Iterator

import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from aclora import restart_peft
from aclora.lora.restart import threshold

RANK, E, BLOCK, LOG_LINES = 16, 10, 32, 40
WAYS = {"LoRA": None, "LoRA, RESTART": "factors", "LoRA, RESTART on the product": "product"}

PEOPLE = {  # person → actions, objects, means
    "fisher": (("mends", "dries"), ("net", "sail"), ("twine", "wax")),
    "baker": (("kneads", "bakes"), ("loaf", "bun"), ("butter", "salt")),
    "keeper": (("trims", "lights"), ("lamp", "wick"), ("oil", "shears")),
    "pilot": (("steers", "moors"), ("boat", "barge"), ("rope", "oar")),
}
ADJECTIVES = ("old", "young", "tired", "merry")
WINDS = {"calm": ("glassy", "high"), "fresh": ("choppy", "steady"), "wild": ("breaking", "low")}  # sea, glass
WATCHES, QUARTERS = ("dawn", "noon", "dusk", "night"), ("north", "east", "south", "west")


def tale(rng: random.Random) -> list[str]:
    """A sentence: at dusk the old baker kneads a loaf with butter , for the sea is choppy in a fresh east wind ."""
    who, wind = rng.choice(list(PEOPLE)), rng.choice(list(WINDS))
    action, thing, means = map(rng.choice, PEOPLE[who])
    beginning = f"at {rng.choice(WATCHES)} the {rng.choice(ADJECTIVES)} {who} {action} a {thing} with {means}"
    return f"{beginning} , for the sea is {WINDS[wind][0]} in a {wind} {rng.choice(QUARTERS)} wind .".split()


def log(rng: random.Random) -> list[str]:
    """A line of similar words: dusk : wind east fresh , sea choppy , glass steady ; pilot , boat ."""
    wind, who = rng.choice(list(WINDS)), rng.choice(list(PEOPLE))
    sea, glass = WINDS[wind]
    watch, quarter, thing = rng.choice(WATCHES), rng.choice(QUARTERS), rng.choice(PEOPLE[who][1])
    return f"{watch} : wind {quarter} {wind} , sea {sea} , glass {glass} ; {who} , {thing} .".split()


def write(grammar, lines: int, seed: int, without: Collection[str] = ()) -> list[str]:
    """`lines` different lines, none of them in `without`."""
    rng, out = random.Random(seed), {}
    while len(out) < lines:
        line = " ".join(grammar(rng))
        if line not in without:
            out[line] = None
    return list(out)


def vocabulary() -> dict[str, int]:
    """Every word of both grammars by its number."""
    rng = random.Random(0)
    return {w: i for i, w in enumerate(sorted({w for _ in range(2000) for g in (tale, log) for w in g(rng)}))}


def encode(lines: list[str], words: dict[str, int]) -> Tensor:
    """The text as blocks of BLOCK words, (n, BLOCK)."""
    stream = torch.tensor([words[w] for line in lines for w in line.split()])
    return stream[: len(stream) // BLOCK * BLOCK].view(-1, BLOCK)


def batches(text: Tensor, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """The blocks of one epoch, shuffled, in batches."""
    return (text[i] for i in torch.randperm(len(text), generator=generator).split(size))


def step(model, batch: Tensor, optimizer: torch.optim.Optimizer) -> float:
    """One training step; returns the batch's loss."""
    loss = model(input_ids=batch, labels=batch).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


@torch.no_grad()
def perplexity(model, text: Tensor) -> float:
    """exp of the mean negative log-likelihood per word."""
    return math.exp(model(input_ids=text, labels=text).loss.item())


def pretrained(text: Tensor, words: int, steps: int, seed: int):
    """A Llama of two layers, trained on `text` for about `steps` steps."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=words, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4
    )
    model, generator = LlamaForCausalLM(config), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    done = 0
    while done < steps:
        for batch in batches(text, 16, generator):
            step(model, batch, optimizer)
            done += 1
    return model


def adapted(base, text: Tensor, on: str | None, epochs: int, words: int, seed: int):
    """The base with an adapter trained on `text`, and (p, I) of each RESTART; `on` None: without RESTART."""
    torch.manual_seed(seed)
    targets = ["q_proj", "k_proj", "v_proj", "o_proj"]
    lora = LoraConfig(r=RANK, lora_alpha=RANK, target_modules=targets, init_lora_weights="gaussian")
    model, generator = inject_adapter_in_model(lora, copy.deepcopy(base)), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=5e-3)
    losses, restarts = [], []
    for epoch in range(1, epochs + 1):
        losses += [step(model, batch, optimizer) / math.log(words) for batch in batches(text, 4, generator)]
        if on and epoch % E == 0 and epoch < epochs:
            p = threshold(sum(losses) / len(losses), 1.0, epoch, epochs)
            noise = torch.Generator().manual_seed(1000 * seed + epoch)
            done = restart_peft(model, p, noise, optimizer=optimizer, on=on)
            restarts.append((p, done.index))
            losses = []
    return model, restarts


def main(arguments: list[str] | None = None) -> dict[str, tuple[float, float]]:
    """Print the table; returns the mean perplexity of each variant on the log and on the tales."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300, help="steps of pretraining")
    parser.add_argument("--epochs", type=int, default=60, help="epochs of each adapter")
    parser.add_argument("--seeds", type=int, default=3)
    chosen = parser.parse_args(arguments)
    words = vocabulary()
    tales, log_lines = write(tale, 600, 0), write(log, LOG_LINES, 1)
    tales_text, log_text = encode(tales, words), encode(log_lines, words)
    unseen = [encode(write(log, 200, 2, set(log_lines)), words), encode(write(tale, 200, 3, set(tales)), words)]
    found = {way: [] for way in ("base model", *WAYS)}
    for seed in range(chosen.seeds):
        base = pretrained(tales_text, len(words), chosen.steps, seed)
        found["base model"].append([perplexity(base, text) for text in unseen])
        for way, on in WAYS.items():
            model, restarts = adapted(base, log_text, on, chosen.epochs, len(words), seed)
            found[way].append([perplexity(model, text) for text in unseen])
            if restarts:
                print(f"seed {seed}, {way}: p, I = " + ", ".join(f"{p:.2f} {index}" for p, index in restarts))
    print(f"\n{'perplexity of':30}{'other lines of the log':>26}{'tales':>26}")
    means = {}
    for way, values in found.items():
        columns = list(zip(*values, strict=True))
        means[way] = tuple(sum(c) / len(c) for c in columns)
        shown = (f"{m:.3f} ({min(c):.3f} … {max(c):.3f})" for m, c in zip(means[way], columns, strict=True))
        print(f"{way:30}" + "".join(f"{text:>26}" for text in shown))
    return means


if __name__ == "__main__":
    main()
