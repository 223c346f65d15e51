"""The base model, the encoders and the captioner: parts missing, cut, of another kind, pickled."""

import json
import os
import struct
from collections.abc import Iterator

import torch
from safetensors.torch import load, save

from tests.trials.case import Case
from tests.trials.tree import TOUCHED, Tree

KIND = "networks"
MODELS = "models/miniature"
PIPELINE = f"{MODELS}/pipeline"
NEEDED = (
    "model_index.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "tokenizer/tokenizer.json",
    "scheduler/scheduler_config.json",
)
PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
ENCODERS = {"clip": "clip", "dino": "dino", "image_reward": "reward", "judge": "judge"}
BESIDE = {
    "clip": ("config.json", "preprocessor_config.json", "tokenizer.json"),
    "dino": ("config.json", "preprocessor_config.json"),
    "reward": ("tokenizer.json",),
    "judge": ("config.json",),
    "captioner": ("config.json", "preprocessor_config.json", "tokenizer.json"),
}


class Payload:
    """What a stranger's pickle runs when it is opened."""

    def __reduce__(self):
        return os.system, (f"touch {TOUCHED}",)


def cases() -> Iterator[Case]:
    yield from base_model()
    yield from weights(f"{PIPELINE}/unet/diffusion_pytorch_model.safetensors", r"model\.name|unet")
    yield from weights(f"{PIPELINE}/vae/diffusion_pytorch_model.safetensors", r"model\.name|vae")
    yield from weights(f"{PIPELINE}/text_encoder/model.safetensors", r"model\.name|text_encoder")
    for knob, folder in ENCODERS.items():
        yield from network(rf"evaluate\.{knob}|evaluate\.(fid|judge)|{folder}", folder)
    yield from network(r"captions\.model|captioner", "captioner")
    yield from knobs()


def weights(name: str, says: str) -> Iterator[Case]:
    """A file of weights that cannot be what it says."""
    place = "/".join(name.split("/")[2:])
    pickled = (
        name.replace(".safetensors", ".bin")
        .replace("model.bin", "pytorch_model.bin")
        .replace("_pytorch_pytorch", "_pytorch")
    )
    content = {
        "of zero bytes": b"",
        "of zeros": b"\0" * 4096,
        "that is text": b"version https://git-lfs.github.com/spec/v1\n",
        "with a header of 2⁶⁰ bytes": struct.pack("<Q", 2**60) + b"{}",
        "with an empty header": struct.pack("<Q", 2) + b"{}",
        "with a header that is no JSON": struct.pack("<Q", 4) + b"{{{{",
        "that is a pickle": b"\x80\x04K\x01.",
    }
    yield Case(f"{place} cut in half", lambda tree: tree.cut(name), says)
    yield Case(f"{place} without its last bytes", lambda tree: tree.write(name, tree.read(name)[:-4]), says)
    for what, made in content.items():
        yield Case(f"{place} {what}", lambda tree, made=made: tree.write(name, made), says)
    yield Case(f"{place} with NaN", lambda tree: change(tree, name, lambda t: t * float("nan")), says)
    yield Case(f"{place} with one NaN", lambda tree: change(tree, name, one_nan), says)
    yield Case(
        f"{place} with tensors of another shape",
        lambda tree: change(tree, name, lambda t: t[..., :1].contiguous()),
        says,
    )
    yield Case(f"{place} with other keys", lambda tree: renamed(tree, name), says)
    yield Case(f"{place} with half its tensors", lambda tree: halved(tree, name), says)
    yield Case(f"{place} pickled alone", lambda tree: only_pickled(tree, name, pickled), says)


def change(tree: Tree, name: str, how) -> None:
    tensors = {key: how(t) if t.is_floating_point() and t.ndim > 1 else t for key, t in load(tree.read(name)).items()}
    tree.write(name, save(tensors, {"format": "pt"}))


def one_nan(tensor):
    tensor.view(-1)[0] = float("nan")
    return tensor


def renamed(tree: Tree, name: str) -> None:
    tree.write(name, save({f"x.{key}": t for key, t in load(tree.read(name)).items()}, {"format": "pt"}))


def halved(tree: Tree, name: str) -> None:
    tensors = load(tree.read(name))
    tree.write(name, save({key: tensors[key] for key in sorted(tensors)[::2]}, {"format": "pt"}))


def only_pickled(tree: Tree, name: str, pickled: str) -> None:
    """The same weights as a pickle with a command in it: opening it with Python's own means would run that."""
    tensors = load(tree.read(name))
    tree.remove(name)
    torch.save({**tensors, "payload": Payload()}, tree.path(pickled))


def base_model() -> Iterator[Case]:
    for name in NEEDED:
        yield Case(f"{name} is missing", lambda tree, name=name: tree.remove(f"{PIPELINE}/{name}"), r"model\.name")
    for part in PARTS:
        yield Case(f"the folder {part} is missing", lambda tree, part=part: tree.remove(f"{PIPELINE}/{part}"), part)
        yield Case(f"{part} is a file", lambda tree, part=part: tree.write(f"{PIPELINE}/{part}", "x"), r"model\.name")
    for name in (name for name in NEEDED if name.endswith(".json")):
        for what, content in (
            ("cut", None),
            ("empty", b""),
            ("a list", b"[]"),
            ("null", b"null"),
            ("binary", b"\xff\xfe\0"),
            ("{}", b"{}"),
        ):
            spoil = (
                (lambda tree, name=name: tree.cut(f"{PIPELINE}/{name}"))
                if content is None
                else (lambda tree, name=name, content=content: tree.write(f"{PIPELINE}/{name}", content))
            )
            # a scheduler without settings has its class's own
            answer = "sound" if (what, name) == ("{}", NEEDED[-1]) else "error"
            yield Case(f"{name} is {what}", spoil, r"model\.name|" + name.split("/")[0], answer)
    for what, part, entry in (
        ("of a class that is none", "unet", ["diffusers", "NoSuchNet"]),
        ("of os.system", "unet", ["os", "system"]),
        ("of another class", "vae", ["diffusers", "UNet2DModel"]),
        ("null", "vae", None),
        ("a number", "unet", 7),
    ):
        yield Case(
            f"the index lists a {part} {what}",
            lambda tree, part=part, entry=entry: listed(tree, part, entry),
            r"model\.name",
        )
    for what, key, value in (
        ("another prediction", "prediction_type", "nothing"),
        ("no steps", "num_train_timesteps", 0),
        ("steps in words", "num_train_timesteps", "many"),
        ("betas of NaN", "trained_betas", [float("nan")] * 1000),
    ):
        file = f"{PIPELINE}/scheduler/scheduler_config.json"
        yield Case(
            f"a scheduler with {what}",
            lambda tree, key=key, value=value, file=file: setting(tree, file, key, value),
            r"model\.name",
        )
    for name in ("clip", "judge", "captioner", "card.png", "card.json", "trained_on.json"):
        yield Case(
            f"model.name: {name}", lambda tree, name=name: at(tree, "model", f"{MODELS}/{name}"), r"model\.(name|watch)"
        )


def listed(tree: Tree, part: str, entry) -> None:
    setting(tree, f"{PIPELINE}/model_index.json", part, entry)


def setting(tree: Tree, file: str, key: str, value) -> None:
    tree.write(file, json.dumps(json.loads(tree.read(file)) | {key: value}))


def at(tree: Tree, section: str, folder: str) -> None:
    tree.knob("model.name", folder)
    tree.knob("model.watch", folder)


def network(says: str, folder: str) -> Iterator[Case]:
    place = f"{MODELS}/{folder}"
    for name in BESIDE[folder]:
        yield Case(f"{folder}/{name} is missing", lambda tree, name=name: tree.remove(f"{place}/{name}"), says)
        yield Case(f"{folder}/{name} is cut", lambda tree, name=name: tree.cut(f"{place}/{name}"), says)
        yield Case(f"{folder}/{name} is a list", lambda tree, name=name: tree.write(f"{place}/{name}", "[]"), says)
    yield Case(f"{folder} is empty", lambda tree: tree.path(place).mkdir(), says)
    yield Case(f"{folder} is missing", lambda tree: tree.remove(place), says)
    yield from weights(f"{place}/model.safetensors", says)
    other = "dino" if folder == "clip" else "clip"
    yield Case(
        f"{folder} holds the weights of {other}",
        lambda tree: tree.copy(f"{MODELS}/{other}/model.safetensors", f"{place}/model.safetensors"),
        says,
    )


def knobs() -> Iterator[Case]:
    for knob, own in (
        ("clip", "dino"),
        ("dino", "judge"),
        ("image_reward", "clip"),
        ("judge", "reward"),
        ("fid", "clip"),
    ):
        yield Case(
            f"evaluate.{knob}: the {own}",
            lambda tree, knob=knob, own=own: tree.knob(f"evaluate.{knob}", f"{MODELS}/{own}"),
            rf"evaluate\.({knob}|judge)",
        )
    for knob in ("evaluate.clip", "captions.model", "model.name"):
        for value in (
            "''",
            '"a\\0b"',
            "nothing",
            "./nothing",
            "owner/name",
            "owner/name@",
            "owner/name@main",
            "a/b/c@d",
            "../x@y",
            "-x/-y@z",
            "x" * 5000,
            "/dev/null",
            "https://huggingface.co/a/b",
            "owner/na me@abc",
        ):
            section = knob.partition(".")[0]
            yield Case(f"{knob}: {value[:30]}", lambda tree, knob=knob, value=value: tree.knob(knob, value), section)
