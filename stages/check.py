"""check: params.yaml and the networks that it names, looked at before DVC removes an out of any other stage."""

from aclora.core.stage import run_project

from aclora.check.project import check_parameters
from aclora.core.files import writing
from aclora.project.dvc import CHECKED


def main() -> None:
    check_parameters()
    with writing("data/checks/parameters") as (out,):
        out.write_text(CHECKED, encoding="utf-8")


if __name__ == "__main__":
    run_project(main, __doc__)
