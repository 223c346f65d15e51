"""Modules are found by their folder: nothing but the chosen one is imported or read."""

import json
import subprocess
import sys

import pytest

from aclora.core import discovery
from aclora.core.errors import InputError
from tests.conftest import ROOT

WATCHED = """
import json, os, sys
opened = set()
sys.addaudithook(lambda event, args: opened.add(str(args[0])) if event == "open" else None)
from aclora.core.method import method_named
method_named("lora")
print(json.dumps(sorted(os.path.basename(f) for f in opened if "aclora/methods" in f)))
"""


def test_a_chosen_method_is_the_only_one_that_is_read():
    done = subprocess.run([sys.executable, "-c", WATCHED], cwd=ROOT, capture_output=True, text=True, check=True)
    read = {name.partition(".")[0] for name in json.loads(done.stdout)}
    assert read == {"__init__", "lora"}


def test_the_folder_is_the_list():
    files = {f.stem for f in (ROOT / "src/aclora/methods").glob("*.py")} - {"__init__"}
    assert discovery.names("methods") == sorted(files)
    assert "captioner" in discovery.names("models")
    assert "captioner" not in discovery.names("models", "MODEL")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("lroa", "method = 'lroa' is unknown; did you mean 'lora'?"),
        ("nowhere.at_all", "method = 'nowhere.at_all': there is no such module; name one that Python finds"),
        ("json.nowhere", "method = 'json.nowhere': there is no such module"),
        (".lora", "method = '.lora': there is no such module"),
        ("json.decoder", "method = 'json.decoder': the module defines no METHOD"),
    ],
)
def test_an_unknown_name_is_an_error_in_one_line(name, said):
    with pytest.raises(InputError) as error:
        discovery.load("methods", name, "method", "METHOD")
    assert str(error.value).startswith(said)


def test_a_file_that_is_no_family_is_not_offered():
    with pytest.raises(InputError, match=r"model.family = 'captioner' is unknown; .*stable_diffusion") as error:
        discovery.find("models", "captioner", "model.family", "MODEL")
    assert "captioner," not in str(error.value)


def test_a_module_of_the_project_is_found_from_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "mine_here").mkdir()
    (tmp_path / "mine_here/x.py").write_text("METHOD = 3\n", encoding="utf-8")
    assert discovery.load("methods", "mine_here.x", "method", "METHOD") == 3


def test_what_a_module_itself_cannot_import_is_no_wrong_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "broken_here").mkdir()
    (tmp_path / "broken_here/x.py").write_text("import no_such_package\n", encoding="utf-8")
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        discovery.load("methods", "broken_here.x", "method", "METHOD")
