"""Modules are found by their folder: nothing but the chosen one is imported or read."""

import json
import subprocess
import sys

import pytest

from aclora.core import discovery
from aclora.core.errors import InputError
from aclora.core.method import method_named
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


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module of one's own, `own_package.own`, with this code."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    (tmp_path / "own_package").mkdir()
    return lambda code: (tmp_path / "own_package/own.py").write_bytes(code.encode() if isinstance(code, str) else code)


def test_a_module_of_the_project_is_found_from_its_folder(own):
    own("class METHOD: pass\n")
    assert discovery.load("methods", "own_package.own", "method", "METHOD").__module__ == "own_package.own"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import no_such_package", "ModuleNotFoundError: No module named 'no_such_package' (own.py, line 1)"),
        ("x = 1\nraise ValueError('not\\ntoday')", "ValueError: not today (own.py, line 2)"),
        ("import sys\nsys.exit('bye')", "SystemExit: bye (own.py, line 2)"),
        ("import sys\nsys.exit(0)", "SystemExit: 0 (own.py, line 2)"),
        ("def broken(:", "SyntaxError: invalid syntax (own.py, line 1)"),
        (b"x = 'caf\xe9'", "SyntaxError: (unicode error) 'utf-8' codec can't decode byte 0xe9"),
        ("raise RuntimeError('\\x1b[31mred')", "RuntimeError: \\x1b[31mred (own.py, line 1)"),
        ("def f():\n    f()\nf()", "RecursionError: maximum recursion depth exceeded"),
    ],
)
def test_a_module_that_cannot_be_imported_is_an_error_in_one_line(own, code, said):
    own(code)
    with pytest.raises(InputError) as error:
        discovery.load("methods", "own_package.own", "method", "METHOD")
    assert str(error.value).startswith(f"method = 'own_package.own': the module cannot be imported: {said}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", ["3", "None", "[]", "object()", "int", "lambda: 1"])
def test_what_is_no_class_of_the_kind_is_refused(own, value):
    own(f"METHOD = {value}\n")
    with pytest.raises(InputError, match=r"METHOD = .* there, must be a class that inherits from aclora.core.method.M"):
        method_named("own_package.own")
