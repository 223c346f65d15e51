"""How does each metric rank pictures of which we know how good they are? It makes docs/results/metrics.md's table.

    python -m bench.truth [--plot docs/results/metrics.png]

For each of the eight drawn styles, 64 pictures a set: fresh ones in the style that nobody trained on; the training set
again and again; one fresh picture again and again; the same scenes in the next style; fresh ones with the captions of
other scenes; fresh ones blurred; fresh ones with noise. The reference is 256 other held-out drawings, or the
twelve training pictures, as a user without others has it.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter

from aclora.core import params
from aclora.data.pictures import picture_files, read_squares
from aclora.evaluation.evaluate import EvaluateConfig, encoders_of, picture_set
from aclora.metrics.contract import Context
from aclora.metrics.contract import figures as every_figure
from miniature.drawing import STYLES, held_out

COUNT, REFERENCE = 64, 256
FIGURES = {
    name: figure
    for name, figure in every_figure().items()
    if figure.better and figure.with_base and figure.of == "generated"
}
AGAINST_REFERENCE = [name for name, figure in FIGURES.items() if figure.against == "reference"]
BETTER = {name: figure.better for name, figure in FIGURES.items()}
BETTER |= {f"{name}, training": FIGURES[name].better for name in AGAINST_REFERENCE}


def noisy(picture, seed):
    """Gaussian noise of a tenth of the range."""
    rng = np.random.default_rng(seed)
    values = np.asarray(picture) + rng.normal(0, 25.5, (picture.height, picture.width, 3))
    return Image.fromarray(values.clip(0, 255).round().astype(np.uint8))


def sets_of(style: str) -> dict[str, tuple[list, list[str]]]:
    """Name → (pictures, captions)."""
    drawn = held_out(style, REFERENCE + COUNT)[REFERENCE:]
    pictures, captions = [p for p, _ in drawn], [s.caption for _, s in drawn]
    folder = Path("data/styles") / style
    files = picture_files(folder)
    own, said = read_squares(files, 64), [f.with_suffix(".txt").read_text().strip() for f in files]
    after = list(STYLES)[(list(STYLES).index(style) + 1) % len(STYLES)]
    return {
        "fresh": (pictures, captions),
        "training set copied": ([own[i % len(own)] for i in range(COUNT)], [said[i % len(own)] for i in range(COUNT)]),
        "one picture repeated": ([pictures[0]] * COUNT, [captions[0]] * COUNT),
        "another style": ([p for p, _ in held_out(after, REFERENCE + COUNT)[REFERENCE:]], captions),
        "other objects": (pictures, captions[1:] + captions[:1]),
        "blurred": ([p.filter(ImageFilter.GaussianBlur(1.5)) for p in pictures], captions),
        "noisy": ([noisy(p, i) for i, p in enumerate(pictures)], captions),
    }


def measured(style: str, encoders: dict) -> dict[str, dict[str, float]]:
    """Set → figure → value."""

    def look(pictures, captions=None):
        names = [f"picture {i}" for i in range(len(pictures))]
        return picture_set(encoders, FIGURES, names, pictures, captions)

    real = look([p for p, _ in held_out(style, REFERENCE)])
    training = look(read_squares(picture_files(Path("data/styles") / style), 64))
    out = {}
    for name, (pictures, captions) in sets_of(style).items():
        seen = look(pictures, captions)
        fresh, trained = (Context(seen, against, training, True, style) for against in (real, training))
        out[name] = {k: float(torch.as_tensor(f.measure(seen, fresh)).mean()) for k, f in FIGURES.items()}
        for key in AGAINST_REFERENCE:
            out[name][f"{key}, training"] = float(torch.as_tensor(FIGURES[key].measure(seen, trained)).mean())
    return out


def plot(means: dict, ranks: dict, file: Path) -> None:
    """Ranks as colours, mean values as numbers: a row a set, a column a figure."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    sets, figures = list(means), list(next(iter(means.values())))
    figure, axis = plt.subplots(figsize=(14, 4.4), layout="constrained")
    shown = axis.imshow(
        [[ranks[s][f] for f in figures] for s in sets], cmap="RdYlGn_r", vmin=1, vmax=len(sets), aspect="auto"
    )
    for i, s in enumerate(sets):
        for j, f in enumerate(figures):
            axis.text(j, i, f"{means[s][f]:.3g}", ha="center", va="center", fontsize=9)
    axis.set_xticks(
        range(len(figures)),
        [FIGURES[f.split(",")[0]].label + f.partition(",")[2].replace(" ", "\nvs. ") for f in figures],
        fontsize=8,
    )
    axis.set_yticks(range(len(sets)), sets)
    figure.colorbar(shown, ax=axis, label="mean rank of eight styles (1: best)")
    figure.savefig(file, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()
    config = params.load("evaluate", EvaluateConfig)
    encoders = encoders_of(config, every_figure(), Path(".cache/features"), "cpu")
    every = [measured(style, encoders) for style in STYLES]
    sets, figures = list(every[0]), list(every[0]["fresh"])
    means = {s: {f: float(np.mean([one[s][f] for one in every])) for f in figures} for s in sets}
    ranks = {s: {} for s in sets}
    for f in figures:
        values = torch.tensor([[-BETTER[f] * one[s][f] for s in sets] for one in every], dtype=torch.float64)
        place = (values[:, None] < values[:, :, None]).sum(-1) + 1  # how many sets are better, and one
        for s, mean in zip(sets, place.double().mean(0).tolist(), strict=True):
            ranks[s][f] = mean
    print("encoders: " + ", ".join(e.label for e in encoders.values()) + "\n")
    print("| set | " + " | ".join(figures) + " |\n|" + "---|" * (len(figures) + 1))
    for s in sets:
        print(f"| {s} | " + " | ".join(f"{means[s][f]:.3g} ({ranks[s][f]:.1f})" for f in figures) + " |")
    ahead = {
        f: sum(BETTER[f] * (one["training set copied"][f] - one["fresh"][f]) > 0 for one in every) for f in figures
    }
    print("| styles in which copies beat fresh | " + " | ".join(f"{n} of {len(every)}" for n in ahead.values()) + " |")
    if args.plot:
        plot(means, ranks, args.plot)


if __name__ == "__main__":
    main()
