"""DVC's plots as one HTML page that needs no network. DVC's own page loads Vega from a server and is blank without."""

import re
import tempfile
from pathlib import Path

from aclora.core.errors import InputError
from aclora.project import dvc, process

GLOBALS = "window.vegaEmbed = vegaEmbed; window.vega = vega; window.vegaLite = vegaLite;"
PAGE = """<!DOCTYPE html>
<html>
<head>
<meta charset="utf-8">
<title>aclora: plots</title>
<style>body {{ font-family: sans-serif; }} img {{ max-width: 100%; }}</style>
<script>
(() => {{ {libraries} }})();
</script>
</head>
<body>
{{plot_divs}}
</body>
</html>
"""


def write(revisions: list[str], folder: Path) -> Path:
    """Draw the plots of `revisions` (git revisions or experiments) into `folder`; of one, beside the workspace's.

    Returns the page. Raises `InputError` with DVC's reason where it cannot draw them.
    """
    if dashed := [revision for revision in revisions if revision.startswith("-")]:
        raise InputError(f"{dashed[0]!r} is no git revision and no experiment")
    import vl_convert

    with tempfile.TemporaryDirectory() as scratch:
        template = Path(scratch) / "page.html"
        template.write_text(PAGE.format(libraries=vl_convert.javascript_bundle(GLOBALS)), encoding="utf-8")
        options = ("-o", str(folder), "--html-template", str(template))
        status, lines = dvc.run("plots", "diff", *revisions, *options, log=lambda line: None)
    if status:
        raise InputError(f"dvc plots diff {' '.join(revisions)}: {process.reason(lines)}")
    page = folder / "index.html"
    page.write_text(_escaped(page.read_text(encoding="utf-8")), encoding="utf-8")
    return page


def _escaped(page):
    """DVC writes values and names of revisions into a script as they are: `</script>` in one would end it."""
    return re.sub(r"(?m)^( *var spec = )(.*)$", lambda line: line[1] + line[2].replace("<", r"\u003c"), page)
