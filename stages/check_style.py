"""check-style: a style's pictures, captions and reference, looked at before DVC removes an out of its other stages."""

from aclora.core.stage import run

from aclora.check.project import NETWORKS, PICTURES
from aclora.check.styles import check_style
from aclora.core.files import writing
from aclora.project.dvc import CHECKED
from aclora.project.home import home


def main(name: str) -> None:
    line, warnings = check_style(name, home() / PICTURES, home() / NETWORKS)
    for warning in warnings:
        print(f"warning: {warning}")
    print(line)
    with writing(f"data/checks/styles/{name}") as (out,):
        out.write_text(CHECKED, encoding="utf-8")


if __name__ == "__main__":
    run(main, __doc__)
