"""What `import aclora` offers a notebook, and what it costs."""

import ast
import importlib
import inspect
import subprocess
import sys
import tomllib

import pytest
import torch
from packaging.requirements import Requirement

import aclora
from aclora.core.errors import InputError
from tests.conftest import ROOT, locked

PUBLIC = ["compare", "export_lora", "read_lora", "restart", "restart_peft"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# What the extras bring: the library works without it.
EXTRAS = ("dvc", "mlflow", "prefect", "pandas", "requests", "httpx", "networkx", "sqlalchemy", "matplotlib")
EXTRAS += ("torchmetrics", "vl_convert", "pytest", "scipy")


def python(code):
    """Run code in a Python of its own and return what it prints."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_it_loads_nothing():
    own = set(python("import sys; import aclora; print(*sys.modules)").split())
    bare = set(python("import sys; import typing; print(*sys.modules)").split())
    assert "aclora" in own
    assert {name.split(".")[0] for name in own - bare} == {"aclora", "importlib"}


def test_all_that_it_offers_is_listed():
    assert aclora.__all__ == ["__version__", *PUBLIC]
    assert set(aclora.__all__) <= set(dir(aclora))
    with pytest.raises(AttributeError, match="module 'aclora' has no attribute 'restrat'"):
        _ = aclora.restrat


@pytest.mark.parametrize("name", PUBLIC)
def test_every_name_is_a_documented_function_with_types(name):
    function = getattr(aclora, name)
    assert getattr(aclora, name) is function
    assert len(inspect.getdoc(function).split("\n")) > 1
    signature = inspect.signature(function)
    assert signature.return_annotation is not inspect.Signature.empty
    assert all(p.annotation is not inspect.Parameter.empty for p in signature.parameters.values())


def test_type_checkers_see_the_same_functions():
    """The imports under TYPE_CHECKING are what `__getattr__` looks up."""
    tree = ast.parse((ROOT / "src/aclora/__init__.py").read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.asname or alias.name: (node.module, alias.name) for node in block.body for alias in node.names}
    assert set(seen) == set(PUBLIC)
    for name, (module, original) in seen.items():
        assert getattr(importlib.import_module(module), original) is getattr(aclora, name)


def test_a_file_goes_through_the_library(tmp_path):
    """read, RESTART, export, read again: as README's users do it, in names of `aclora` alone."""
    rng = torch.Generator().manual_seed(0)
    layer = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    factors = {layer: (torch.randn(4, 320, generator=rng), torch.randn(320, 4, generator=rng))}
    aclora.export_lora(tmp_path / "a.safetensors", factors, {"style": "fog"}, "diffusers")
    done = aclora.restart(aclora.read_lora(tmp_path / "a.safetensors").factors, 0.5, torch.Generator().manual_seed(1))
    aclora.export_lora(tmp_path / "b.safetensors", done.factors, {}, "kohya", "sd15")
    found = aclora.read_lora(tmp_path / "b.safetensors")
    assert found.format == "kohya"
    assert all(torch.equal(x, y) for x, y in zip(found.factors[layer], done.factors[layer], strict=True))
    assert not torch.equal(found.factors[layer][0], factors[layer][0])


def test_compare_takes_two_folders(tmp_path):
    with pytest.raises(InputError, match="no evaluation in it"):
        aclora.compare(tmp_path, tmp_path)


def test_the_library_works_without_the_extras(tmp_path):
    code = f"import sys\nfor name in {EXTRAS}: sys.modules[name] = None\n"
    code += f"import aclora\nfor name in {PUBLIC}: getattr(aclora, name)\n"
    code += "from aclora.cli.main import main\nmain(['--help'])\nprint('works')"
    assert python(code).endswith("works\n")


def test_types_are_shipped():
    assert (ROOT / "src/aclora/py.typed").is_file()
    packaged = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    assert packaged["package-data"]["aclora"] == ["py.typed"]
    assert packaged["dynamic"]["version"] == {"attr": "aclora.__version__"}


def test_the_lock_satisfies_every_requirement():
    lock = locked()
    extras = PROJECT["optional-dependencies"]
    wanted = [Requirement(line) for line in [*PROJECT["dependencies"], *(r for e in extras.values() for r in e)]]
    own = [r for r in wanted if r.name == "aclora"]
    assert all(r.extras <= extras.keys() for r in own)
    for requirement in wanted:
        if requirement not in own:
            assert requirement.name in lock, requirement
            assert lock[requirement.name] in requirement.specifier, requirement


def test_the_library_alone_brings_no_servers():
    names = {Requirement(line).name for line in PROJECT["dependencies"]}
    assert not names & {"dvc", "mlflow", "prefect", "pytest", "matplotlib", "torchmetrics"}
