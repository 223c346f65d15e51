"""The graph is DVC's: order, styles, changes and outs."""

import pytest

from aclora.core.errors import InputError
from flows import dvc_graph
from tests.conftest import ROOT


def names(styles=None):
    return [stage.name for stage in dvc_graph.stages(styles)]


def test_our_own_pipeline_without_the_miniature(monkeypatch):
    monkeypatch.chdir(ROOT)
    stages = dvc_graph.stages(["watercolor"])
    assert [s.name.split("@")[0] for s in stages] == [
        "check",
        "check-style",
        "caption",
        "train-aclora",
        "restart-audit",
        "generate",
        "evaluate",
    ]
    assert {s.style for s in stages[1:]} == {"watercolor"}
    assert stages[-1].needs == ("generate@watercolor",)


def test_styles_in_order_and_each_stage_after_what_it_needs(toy):
    one = ["caption", "train-aclora", "evaluate"]
    assert names() == [f"{stage}@{style}" for style in ("oil", "ink") for stage in one]
    assert names(["ink", "oil"]) == [f"{stage}@{style}" for style in ("ink", "oil") for stage in one]


def test_a_stage_added_to_dvc_yaml_is_found(toy):
    toy.edit("dvc.yaml", "deps: [caption.py, ", "deps: [caption.py, tools, ")
    toy.edit("dvc.yaml", "stages:\n", ADDED)
    assert names(["oil"]) == ["prepare", "caption@oil", "train-aclora@oil", "evaluate@oil", "card@oil"]
    assert names()[-1] == "summary"
    assert next(s for s in dvc_graph.stages(None) if s.name == "caption@ink").needs == ("prepare",)


ADDED = """\
stages:
  prepare:
    cmd: mkdir tools
    outs: [tools]
  card:
    foreach: ${styles}
    do:
      cmd: cp metrics/${key}/scores.json card-${key}
      deps: ['metrics/${key}/scores.json']
      outs: ['card-${key}']
  summary:
    cmd: touch summary
    deps: [card-oil, card-ink]
    outs: [summary]
"""


def test_changed_stages_are_found(toy):
    toy.run("dvc", "repro")
    assert dvc_graph.changed(names()) == set()
    (toy.folder / "pictures/ink/2.png").write_text("another")
    assert dvc_graph.changed(names()) == {"caption@ink"}
    toy.edit("params.yaml", "seed: 0", "seed: 1")
    assert dvc_graph.changed(names()) == {"caption@ink", "train-aclora@ink", "train-aclora@oil"}


def test_outs_of_all_kinds_are_listed(toy):
    assert set(dvc_graph.outs()) >= {"captions/oil.txt", "adapters/ink", "metrics/oil/scores.json"}


def test_an_unknown_style_names_those_that_exist(toy):
    with pytest.raises(InputError, match=r"style 'oill' is unknown; did you mean 'oil'\? there are: oil, ink"):
        dvc_graph.chosen(["ink", "oill"])


def test_a_missing_remote_is_an_error_with_its_remedy(toy):
    assert not dvc_graph.has_remote()
    with pytest.raises(InputError, match=r"no default remote: `dvc remote add --default NAME URL`"):
        dvc_graph.require_remote()
    toy.run("dvc", "remote", "add", "-q", "--default", "shared", str(toy.folder.parent))
    dvc_graph.require_remote()


def test_a_broken_pipeline_is_dvcs_error_in_one_line(toy):
    toy.edit("dvc.yaml", "${styles}", "${stiles}")
    with pytest.raises(InputError, match=r"^DVC: .*stiles"):
        dvc_graph.stages(None)
