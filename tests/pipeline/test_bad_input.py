"""What goes wrong is said in one line that names the knob or file, and leaves no half-written out."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

PICTURES = Path("data/styles/watercolor")


def no_folder(p):
    shutil.rmtree(p.folder / PICTURES)


def no_pictures(p):
    for file in (p.folder / PICTURES).glob("*.png"):
        file.unlink()


def broken_picture(p):
    (p.folder / PICTURES / "03.png").write_bytes(b"\x89PNG\r\n\x1a\nnot")


def no_caption(p):
    (p.folder / PICTURES / "03.txt").unlink(missing_ok=True)
    p.edit("params.yaml", "  model: models/miniature/captioner", "  model: null")


def too_fast(p):
    p.edit("params.yaml", "  learning_rate: ", "  learning_rate: 0.9")
    p.edit("params.yaml", "  restart_every: ", "  restart_every: 20")  # or the RESTART would notice first


def caption_not_utf8(p):
    (p.folder / PICTURES / "03.txt").write_bytes(b"caf\xe9")


def nothing_generated(p):
    shutil.rmtree(p.folder / "data/generated/watercolor")


def mixed_sizes(p):
    file = p.folder / "data/generated/watercolor/adapter/0002.png"
    file.unlink()  # a link into DVC's cache, perhaps
    Image.new("RGB", (32, 32)).save(file)


def one_real(p):
    (p.folder / "data/one").mkdir()
    shutil.copy(p.folder / PICTURES / "01.png", p.folder / "data/one")
    p.edit("params.yaml", "    reference: ", "    reference: data/one")


def no_vocabulary(p):
    shutil.copytree(p.folder / "models/miniature/clip", p.folder / "models/miniature/mute")
    (p.folder / "models/miniature/mute/tokenizer.json").unlink()
    p.edit("params.yaml", "  clip: ", "  clip: models/miniature/mute")


def setting(old, new):
    return lambda p: p.edit("params.yaml", old, new)


CASES = {
    "folder missing": ("caption", no_folder, "data/styles/watercolor is not a folder"),
    "folder empty": ("caption", no_pictures, "data/styles/watercolor holds no pictures"),
    "picture unreadable": ("caption", broken_picture, "03.png is not a readable picture"),
    "caption missing": ("caption", no_caption, "03.png has no caption"),
    "caption not UTF-8": ("caption", caption_not_utf8, "03.txt is not UTF-8"),
    "trigger empty": ("caption", setting("    trigger: ", "    trigger: ' '"), "styles.watercolor.trigger = ' '"),
    "unknown parameter": (
        "train",
        setting("  epochs: ", "  epcohs: 3"),
        "train.epcohs is unknown; did you mean 'epochs'",
    ),
    "wrong type": (
        "train",
        setting("  epochs: ", "  epochs: many"),
        "train.epochs = 'many': must be a whole number",
    ),
    "unknown method": (
        "train",
        setting("method: ", "method: lroa"),
        "method = 'lroa' is unknown; did you mean 'lora'",
    ),
    "rank too high": (
        "train",
        setting("  max_rank: ", "  max_rank: 65"),
        "aclora.max_rank = 65: must be at most 64",
    ),
    "loss no number": (
        "train",
        too_fast,
        "train.learning_rate = 0.9: the loss is",
    ),
    "no model": (
        "train",
        setting("  name: models", "  name: ./nowhere"),
        "model.name = './nowhere': no such folder",
    ),
    "no prompts": (
        "generate",
        setting("  prompts: ", "  prompts: data/none.txt"),
        "generate.prompts = 'data/none.txt': no such file",
    ),
    "no judge": (
        "evaluate",
        setting("  judge: ", "  judge: models/none"),
        "evaluate.judge = 'models/none': no such folder; of a hub name give the commit",
    ),
    "encoder not to be had": (
        "evaluate",
        setting("  clip: ", "  clip: openai/clip-vit-large-patch14@32bd64288804d66eefd0ccbe215aa642df71cc41"),
        "set it to null: without CMMD, CLIP score, share of copies, distance to nearest training picture, still",
    ),
    "nothing generated": (
        "evaluate",
        nothing_generated,
        "data/generated/watercolor holds no generated pictures (prompts.jsonl is missing): run the generate stage",
    ),
    "generated picture gone": (
        "evaluate",
        lambda p: (p.folder / "data/generated/watercolor/base/0003.png").unlink(),
        "base/0003.png, which data/generated/watercolor/prompts.jsonl lists, is missing",
    ),
    "sizes mixed": (
        "evaluate",
        mixed_sizes,
        "adapter/0002.png is (32, 32), data/generated/watercolor/adapter/0000.png",
    ),
    "one real picture": ("evaluate", one_real, "data/one holds one picture; to compare with, at least 2 are needed"),
    "vocabulary missing": ("evaluate", no_vocabulary, "evaluate.clip = 'models/miniature/mute'"),
    "no reference": (
        "evaluate",
        setting("    reference: ", "    reference: data/nowhere"),
        "data/nowhere is not a folder",
    ),
}
OUTS = {
    "caption": "data/captions/watercolor.jsonl",
    "train": "models/adapters/watercolor",
    "generate": "data/generated/watercolor",
    "evaluate": "metrics/watercolor/scores.json",
}


@pytest.fixture(scope="module")
def finished(done, tmp_path_factory):
    """A copy of the finished project to spoil."""
    from tests.pipeline.conftest import Project

    folder = tmp_path_factory.mktemp("spoilt") / "project"
    shutil.copytree(done.folder, folder, symlinks=True)
    return Project(folder)


@pytest.mark.parametrize("case", CASES)
def test_it_is_said_in_one_line(finished, case):
    stage, spoil, said = CASES[case]
    kept = {f: (finished.folder / f).read_bytes() for f in ["params.yaml"]}
    pictures = finished.folder.parent / "pictures"
    shutil.rmtree(pictures, ignore_errors=True)
    shutil.copytree(finished.folder / PICTURES, pictures)
    out = finished.folder / OUTS[stage]
    shutil.rmtree(out, ignore_errors=True) if out.is_dir() else out.unlink(missing_ok=True)
    try:
        spoil(finished)
        failed = finished.run("python", "-m", f"stages.{stage}", "watercolor")
    finally:
        for file, content in kept.items():
            (finished.folder / file).write_bytes(content)
        shutil.rmtree(finished.folder / PICTURES, ignore_errors=True)
        shutil.copytree(pictures, finished.folder / PICTURES)
    errors = [line for line in failed.stderr.splitlines() if line.startswith("error: ")]
    assert failed.returncode == 1, failed.stderr
    assert len(errors) == 1
    assert said in errors[0]
    assert "Traceback" not in failed.stderr
    assert not out.exists()
    assert not list(out.parent.glob("*.part"))
    finished.run("dvc", "checkout", "--force")  # the next case needs what this one removed


def test_an_unknown_style_is_named(finished):
    failed = finished.run("python", "-m", "stages.caption", "watercolour")
    assert failed.returncode == 1
    assert "style 'watercolour' is unknown; did you mean 'watercolor'?" in failed.stderr


def test_aclora_check_finds_it_before_any_work(finished):
    fine = finished.run("aclora", "check")
    assert fine.returncode == 0
    assert "watercolor: 12 pictures" in fine.stdout
    caption = finished.folder / PICTURES / "05.txt"
    text = caption.read_text()
    caption.write_text(" \n")
    try:
        failed = finished.run("aclora", "check")
    finally:
        caption.write_text(text)
    assert failed.returncode == 1
    assert "05.png has an empty caption (05.txt)" in failed.stderr


def test_a_strict_audit_ends_the_pipeline_and_leaves_its_report(finished):
    before = (finished.folder / "params.yaml").read_bytes()
    finished.edit("params.yaml", "  strict: ", "  strict: true")
    finished.edit("params.yaml", "  min_kept: ", "  min_kept: 0.99")
    try:
        failed = finished.run("dvc", "repro", "restart-audit")
        report = (finished.folder / "metrics/watercolor/audit.json").read_text()
    finally:
        (finished.folder / "params.yaml").write_bytes(before)
    assert failed.returncode != 0
    line = next(line for line in failed.stderr.splitlines() if line.startswith("error: "))
    assert "watercolor: rank collapse at epoch" in line
    assert "attn" in line
    assert "raise aclora.alpha" in line
    assert '"found": true' in report
    finished.run("dvc", "checkout", "--force")
