"""What a web page, or another user of the machine, may try against the Prefect of `make server`.

Whoever may create a deployment runs commands on the worker: it begins with steps that may be a shell's.
"""

import base64
import http.client
import json
import stat
import subprocess

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from tests.flows.browser import Browser
from tests.flows.conftest import at_work, until
from tests.programs import needed_browser

FOREIGN = {"Origin": "http://evil.example"}
STEPS = [{"prefect.deployments.steps.run_shell_script": {"script": "touch /tmp/owned"}}]


def request(site, method, path, body=None, headers=()):
    """A request as a page or a program sends it, with these headers and no others: its status and its headers."""
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=30)
    text = None if body is None else json.dumps(body)
    connection.putrequest(method, f"/api/{path}", skip_host=any(name == "Host" for name, _ in headers))
    for name, value in headers:
        connection.putheader(name, value)
    connection.putheader("Content-Length", str(len(text or "")))
    connection.endheaders((text or "").encode())
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status, answer.headers


def basic(text):
    return {"Authorization": f"Basic {base64.b64encode(text.encode()).decode()}"}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        FOREIGN,  # no Content-Type: a browser asks nobody before it sends this
        FOREIGN | {"Content-Type": "text/plain"},
        FOREIGN | {"Content-Type": "application/json"},
        {"Host": "evil.example", "Content-Type": "application/json"},  # a name that points at 127.0.0.1
        {"Host": "evil.example/api/health?"},
        basic("aclora:"),
        basic("admin:pass"),
        {"Authorization": "Basic"},
        {"Authorization": "Bearer 0"},
    ],
    ids=str,
)
def test_without_the_password_nothing_is_created_or_told(site, headers):
    before = {d["id"] for d in site.get("deployments/filter")}
    flow = site.get("deployments/filter")[0]["flow_id"]
    for method, path, body in (
        ("POST", "flows/", {"name": "evil"}),
        ("POST", "deployments/", {"name": "evil", "flow_id": flow, "work_pool_name": "gpu", "pull_steps": STEPS}),
        ("POST", f"deployments/{min(before)}/create_flow_run", {}),
        ("PATCH", "work_pools/gpu", {"base_job_template": {}}),
        ("DELETE", f"deployments/{min(before)}", None),
        ("POST", "variables/", {"name": "evil", "value": 1}),
        ("GET", "flow_runs/", None),
        ("POST", "logs/filter", {}),
        ("GET", "csrf-token?client=evil", None),
        ("GET", "admin/settings", None),
        ("GET", "variables/name/health", None),
    ):
        status, _ = request(site, method, path, body, list(headers.items()))
        assert status in (401, 403), (method, path)
    assert {d["id"] for d in site.get("deployments/filter")} == before
    assert "evil" not in {flow["name"] for flow in site.get("flows/filter")}


def test_a_browser_is_told_that_foreign_pages_may_not_ask(site):
    wanted = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}

    def allowed(origin):
        _, headers = request(site, "OPTIONS", "deployments/", None, [("Origin", origin), *wanted.items()])
        return headers.get("Access-Control-Allow-Origin")

    own = f"http://127.0.0.1:{site.port}"
    assert allowed(own) == own
    for origin in ("http://evil.example", "null", f"http://127.0.0.1:{site.port + 1}", f"{own}.evil.example"):
        assert allowed(origin) is None


def test_the_password_alone_changes_nothing_without_the_token_of_a_client_that_may_read(site):
    headers = list((basic(site.password) | {"Content-Type": "application/json"}).items())
    status, _ = request(site, "POST", "flows/", {"name": "evil"}, headers)
    assert status == 403


@pytest.mark.parametrize("first", [{"type": "auth"}, {"type": "auth", "token": "aclora:"}, {"type": "filter"}], ids=str)
@pytest.mark.parametrize("path", ["events/in", "events/out", "logs/out"])
@pytest.mark.parametrize("protocols", [["prefect"], None])
def test_websockets_ask_for_it_too(site, path, first, protocols):
    try:
        with connect(f"ws://127.0.0.1:{site.port}/api/{path}", subprotocols=protocols) as socket:
            socket.send(json.dumps(first))
            with pytest.raises(ConnectionClosed):
                socket.recv(timeout=20)
    except InvalidStatus as refused:
        assert refused.response.status_code == 403  # noqa: PT017


def test_the_password_is_this_installations_and_this_users_alone(site):
    folder = site.folder / ".server"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "secret").stat().st_mode) == 0o600
    assert len(site.password) >= len("aclora:") + 32
    assert site.password not in site.output
    for process in at_work(site.folder, "prefect"):
        assert site.password not in " ".join(process.cmdline())
    for log in folder.glob("*.log"):
        assert site.password not in log.read_text(encoding="utf-8", errors="replace")
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=site.folder, capture_output=True, text=True, check=True
    )
    assert ".server" not in listed.stdout
    asked = site.project.run(
        "python", "-m", "flows.start", "style", check=False, env={"PREFECT_API_URL": site.api}
    )  # another installation
    assert asked.returncode == 1
    assert "401 Unauthorized" in asked.stderr


def test_a_person_with_the_password_uses_the_pages(site, tmp_path):
    with Browser(needed_browser(), tmp_path) as browser:
        browser.open(f"http://127.0.0.1:{site.port}/deployments")
        until(lambda: browser.run("document.querySelector('input[type=password]') !== null"), 60, "the question")
        assert "retrain" not in browser.run("document.body.innerText")
        browser.type("input[type=password]", site.password)
        until(lambda: "retrain" in browser.run("document.body.innerText"), 60, "the deployments' names")
