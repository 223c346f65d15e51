"""deploy/: what its files and its guide say exists; compose file, service and Kubernetes job are valid and hardened."""

import importlib.resources
import json
import os
import re
import subprocess
import warnings

import jsonschema
import pytest
import yaml

from tests.conftest import ROOT, locked
from tests.programs import needed

DEPLOY = ROOT / "deploy"


def compose(**values) -> dict:
    """The services of the compose file, its variables replaced."""

    def value(match):
        return values.get(match[1], f"<{match[1]}>")

    text = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(re.sub(r"(?<!\$)\$\{(\w+)(?::\?[^}]*)?\}", value, text))


SERVICES = compose()["services"]


def test_every_variable_is_in_the_example_and_fails_when_unset():
    text = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
    example = set(re.findall(r"^(\w+)=", (DEPLOY / "env.example").read_text(encoding="utf-8"), re.M))
    assert set(re.findall(r"(?<!\$)\$\{(\w+)", text)) == example
    assert set(re.findall(r"\$\{(\w+):\?", text)) == example
    assert set(re.findall(r"\{\$(\w+)\}", (DEPLOY / "Caddyfile").read_text())) == set(SERVICES["proxy"]["environment"])


def test_no_secret_has_a_default():
    for line in (DEPLOY / "env.example").read_text(encoding="utf-8").splitlines():
        if re.match(r"\w*(PASSWORD|SECRET)\w*=", line):
            assert line.split("=")[1] in ("", "''"), line


def test_files_services_volumes_and_networks_exist():
    file = compose()
    for name, service in SERVICES.items():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert source in file["volumes"] or (DEPLOY / source).is_file(), (name, source)
        assert set(service.get("depends_on", ())) <= set(SERVICES)
        assert set(service["networks"]) <= set(file["networks"])
        if "build" in service:
            assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
    ports = {"prefect": "4200", "mlflow": "5000", "s3": "8333"}
    proxied = re.findall(r"reverse_proxy (\w+):(\d+)", (DEPLOY / "Caddyfile").read_text())
    assert dict(proxied) == ports
    for name in ("prefect", "mlflow"):
        command = SERVICES[name]["command"]
        assert command[command.index("--port") + 1] == ports[name]
    assert f"-s3.port={ports['s3']} " in (DEPLOY / "s3.sh").read_text()
    assert SERVICES["mlflow"]["environment"]["MLFLOW_S3_ENDPOINT_URL"] == f"http://s3:{ports['s3']}"


def test_the_compose_file_is_valid():
    schema = importlib.resources.files("check_jsonschema.builtin_schemas.vendor") / "compose-spec.json"
    validator = jsonschema.Draft7Validator(json.loads(schema.read_text(encoding="utf-8")))
    validator.validate(compose())
    assert not validator.is_valid(compose() | {"services": {"s3": {"image": 1}}})


@pytest.mark.parametrize("name", SERVICES)
def test_containers_are_hardened(name):
    service = SERVICES[name]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service.get("cap_add", []) == (["NET_BIND_SERVICE"] if name == "proxy" else [])
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert "/tmp" in service["tmpfs"]
    if "image" in service:
        assert re.fullmatch(r"[a-z/]+:[\d.]+@sha256:[0-9a-f]{64}", service["image"])
    assert ("ports" in service) == (name == "proxy")  # nothing else can be reached from outside
    assert "build" in service or "user" in service or name == "proxy"


def test_what_needs_no_way_out_has_none():
    networks = compose()["networks"]
    assert networks["database"]["internal"]
    assert networks["storage"]["internal"]
    assert {name for name, s in SERVICES.items() if "database" in s["networks"]} == {"postgres", "prefect", "mlflow"}
    assert {name for name, s in SERVICES.items() if "storage" in s["networks"]} == {"s3", "buckets", "mlflow", "proxy"}


def test_the_image_of_the_servers_installs_locked_packages_only():
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    assert re.search(r"^FROM python:3.11-slim@sha256:[0-9a-f]{64}$", text, re.M)
    assert "--require-hashes -r /servers.lock" in text
    assert "USER nobody" in text
    servers = locked("deploy/servers.lock")
    assert servers.items() <= (locked() | locked("deploy/s3.lock")).items()  # the workers' versions
    assert servers.keys() >= {"prefect", "asyncpg", "mlflow", "psycopg2-binary", "boto3"}
    assert "torch" not in servers


def test_s3_is_pinned_apart_from_the_lock():
    pinned = locked("deploy/s3.lock").keys()
    assert {"dvc-s3", "boto3"} <= pinned
    assert not pinned & locked().keys()
    assert {"dvc-ssh", "psycopg2-binary", "asyncpg"} <= locked().keys()


def test_each_s3_key_opens_its_own_bucket(tmp_path):
    """The script that starts SeaweedFS, with a program in its place that shows what it is started with."""
    config = "/tmp/s3.json"
    script = (DEPLOY / "s3.sh").read_text(encoding="utf-8").replace(config, str(tmp_path / "s3.json"))
    weed = tmp_path / "weed"
    weed.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    weed.chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"} | {key: f"the-{key}" for key in SERVICES["s3"]["environment"]}
    done = subprocess.run(["sh", "-c", script], env=env, capture_output=True, text=True, check=True)
    for flag in ("-ip.bind=127.0.0.1", "-master.telemetry=false", "-s3.iam=false", f"-s3.config={tmp_path}/s3.json"):
        assert flag in done.stdout.splitlines()
    assert (tmp_path / "s3.json").stat().st_mode & 0o777 == 0o600
    identities = {one["name"]: one for one in json.loads((tmp_path / "s3.json").read_text())["identities"]}
    assert set(identities) == {"dvc", "mlflow", "admin"}
    for bucket in ("dvc", "mlflow"):
        pair = {"accessKey": f"the-S3_{bucket.upper()}_KEY", "secretKey": f"the-S3_{bucket.upper()}_SECRET"}
        assert identities[bucket]["credentials"] == [pair]
        assert {action.split(":")[1] for action in identities[bucket]["actions"]} == {bucket}
        assert not any(action.startswith("Admin") for action in identities[bucket]["actions"])
    assert "Admin" not in identities["admin"]["actions"]  # the two buckets' only
    assert SERVICES["mlflow"]["environment"]["AWS_ACCESS_KEY_ID"] == "<S3_MLFLOW_KEY>"
    missing = {key: value for key, value in env.items() if key != "S3_ADMIN_SECRET"}
    assert subprocess.run(["sh", "-c", script], env=missing, capture_output=True).returncode


@pytest.mark.filterwarnings("ignore:.*Any type hint is inferred:UserWarning")  # mlflow.cli, when imported
def test_every_setting_exists():
    import mlflow.cli
    import mlflow.environment_variables
    import prefect.settings

    known = {option.envvar for option in mlflow.cli.server.params} | set(vars(mlflow.environment_variables))
    for name in ("prefect", "mlflow"):
        for key in SERVICES[name]["environment"]:
            if key.startswith("PREFECT_"):
                assert hasattr(prefect.settings, key)
            elif key.startswith("MLFLOW_"):
                assert key in known, key
    flags = {flag for option in mlflow.cli.server.params for flag in option.opts}
    assert {word for word in SERVICES["mlflow"]["command"] if word.startswith("--")} <= flags


def test_the_guide_names_files_and_settings_that_exist():
    import prefect.settings

    guide = (DEPLOY / "README.md").read_text(encoding="utf-8")
    for name in set(re.findall(r"deploy/([\w.]+)", guide)) - {".env"}:
        assert (DEPLOY / name).is_file(), name
    example = set(re.findall(r"^(\w+)=", (DEPLOY / "env.example").read_text(encoding="utf-8"), re.M))
    for key in set(re.findall(r"\bPREFECT_\w+", guide)) - example:
        assert hasattr(prefect.settings, key)


def job(**values) -> dict:
    """The Kubernetes job as Prefect's worker fills it in: the template's defaults and the values of a run."""
    from prefect.utilities.templating import apply_values

    template = json.loads((DEPLOY / "kubernetes.json").read_text())
    given = {key: one["default"] for key, one in template["variables"]["properties"].items() if "default" in one}
    return apply_values(template["job_configuration"]["job_manifest"], given | values, remove_notset=True)


def test_every_variable_of_the_kubernetes_job_is_described():
    template = json.loads((DEPLOY / "kubernetes.json").read_text())
    used = set(re.findall(r"\{\{ (\w+) \}\}", json.dumps(template["job_configuration"])))
    assert used == set(template["variables"]["properties"])
    assert set(template["variables"]["required"]) <= used


def test_the_kubernetes_job_is_valid_and_hardened():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of its package's own resources
        import kubernetes_validate

    manifest = job(
        name="oil",
        namespace="aclora",
        image="registry.example.org/aclora@sha256:" + "0" * 64,
        service_account_name="aclora",
        repository="https://git.example.org/us/aclora",
        labels={"team": "aclora"},
        command=["prefect", "flow-run", "execute"],
        cpu_request="1",
        cpu_limit="4",
        memory_request="8Gi",
        memory_limit="16Gi",
        finished_job_ttl=60,
    )
    container = manifest["spec"]["template"]["spec"]["containers"][0]
    container["env"] = [{"name": key, "value": value} for key, value in container["env"].items()]  # as the worker does
    kubernetes_validate.validate(manifest, "1.37", strict=True)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest | {"spec": manifest["spec"] | {"privileged": True}}, "1.37", strict=True)

    pod = manifest["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["runAsUser"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    for one in [*pod["containers"], *pod["initContainers"]]:
        assert one["securityContext"]["readOnlyRootFilesystem"]
        assert one["securityContext"]["allowPrivilegeEscalation"] is False
        assert one["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert {mount["name"] for mount in one["volumeMounts"]} <= {volume["name"] for volume in pod["volumes"]}
        assert any(mount["mountPath"] == "/tmp" for mount in one["volumeMounts"])


def test_the_service_is_valid_and_hardened(tmp_path):
    program = needed("systemd-analyze", package="systemd")
    unit = tmp_path / "aclora-worker@.service"
    unit.write_bytes((DEPLOY / "worker.service").read_bytes())
    done = subprocess.run([program, "verify", "--man=no", str(unit)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert unit.name not in done.stderr  # where it warns of unknown keys
    # 0 is shut in, 10 is open; without the unit's hardening it is 9.2. The GPU and the network stay open.
    limit = ["--offline=true", "--threshold=40"]
    done = subprocess.run([program, "security", *limit, str(unit)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
