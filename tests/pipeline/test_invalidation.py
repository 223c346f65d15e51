"""What runs again when the code grows: a new file in a room, or a change in one, and which stages notice."""

import re

import pytest

LINE = "\n# another line\n"
FIGURE = """
from aclora.metrics.contract import Figure

FIGURES = (Figure("brightness", "brightness", 0, "dino", lambda p, _: p.features("dino").mean().item(), 300),)
"""


def runs_again(done, file, text):
    """The stages that `dvc repro` would run after `text` has been added to a file, new or not."""
    path = done.folder / "src/aclora" / file
    before = path.read_text(encoding="utf-8") if path.exists() else None
    try:
        path.write_text((before or "") + text, encoding="utf-8")
        ran = re.findall(r"Running stage '([\w-]+)(?:@watercolor)?'", done.repro("--dry"))
        return [stage for stage in ran if stage not in ("check", "check-style")]  # these look at everything
    finally:
        path.unlink() if before is None else path.write_text(before, encoding="utf-8")


@pytest.mark.parametrize(
    ("file", "text", "stages"),
    [
        ("metrics/brightness.py", FIGURE, ["evaluate"]),
        ("encoders/eye.py", LINE, ["evaluate"]),
        ("encoders/fid.py", LINE, ["evaluate"]),
        ("methods/mine.py", LINE, []),
        ("methods/lora.py", LINE, []),
        ("methods/aclora.py", LINE, ["train-aclora"]),
        ("models/mine.py", LINE, []),
        ("models/captioner.py", LINE, ["caption"]),
        ("models/sampling.py", LINE, ["generate"]),
        ("training/loop.py", LINE, ["train-aclora"]),
        ("audit/signatures.py", LINE, ["restart-audit"]),
        ("tracking/store.py", LINE, []),
        ("project/git.py", LINE, []),
        ("cli/main.py", LINE, []),
        ("report/scores.py", LINE, []),
    ],
)
def test_a_change_runs_only_what_rests_on_it(done, file, text, stages):
    assert runs_again(done, file, text) == stages
