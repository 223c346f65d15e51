"""`python -m flows.start FLOW [PARAMETER=JSON …]`: check the input, then start a deployed flow."""

import argparse
import json
import os
import sys

from aclora.core.errors import InputError, did_you_mean
from flows.background import QUIET, of_this_folder

FLOWS = ("style", "retrain", "sweep", "team")


def main(argv: list[str] | None = None) -> int:
    """Entry point; the exit status is 1 after a one-line error, and with `--watch` if the run failed."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.start",
        description="Start a deployed flow.",
        epilog="""example: python -m flows.start style 'styles=["oil", "ink"]' --watch""",
    )
    parser.add_argument("flow", help=f"one of {', '.join(FLOWS)}")
    parser.add_argument("parameters", nargs="*", metavar="PARAMETER=JSON", help="a value in JSON")
    parser.add_argument("--watch", action="store_true", help="wait until it ends")
    args = parser.parse_args(argv)
    os.environ |= {k: v for k, v in QUIET.items() if k not in os.environ}
    if "PREFECT_API_URL" not in os.environ:
        os.environ |= of_this_folder()
    try:
        if "PREFECT_API_URL" not in os.environ:
            raise InputError("no Prefect server is known: `make server` here, or set PREFECT_API_URL")
        if args.flow not in FLOWS:
            raise InputError(f"flow {args.flow!r} is unknown; {did_you_mean(args.flow, FLOWS)}")
        return start(args.flow, dict(map(_parameter, args.parameters)), args.watch)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def start(flow: str, parameters: dict, watch: bool) -> int:
    """Create a run and print its address; returns 1 if `watch` saw it end other than completed.

    Raises `InputError` for an unknown style or parameter, a missing deployment and a server that does not answer.
    """
    import httpx
    from prefect import get_client
    from prefect.exceptions import ObjectNotFound, ParameterTypeError, SignatureMismatchError
    from prefect.flow_runs import wait_for_flow_run
    from prefect.settings import PREFECT_API_URL
    from prefect.utilities.asyncutils import run_coro_as_sync

    from flows import dvc_graph

    dvc_graph.chosen(parameters.get("styles"))
    try:
        with get_client(sync_client=True) as client:
            deployment = client.read_deployment_by_name(f"{flow}/{flow}")
            known = (deployment.parameter_openapi_schema or {}).get("properties", {})
            if unknown := set(parameters) - set(known):
                raise InputError(f"{flow} has no parameter {min(unknown)!r}; {did_you_mean(min(unknown), known)}")
            pool = deployment.work_pool_name or ""
            workers = client.read_workers_for_work_pool(pool)
            run = client.create_flow_run_from_deployment(deployment.id, parameters=parameters)
    except ObjectNotFound:
        aid = "`python -m flows.server deploy`" if flow == "team" else "`make server`"
        raise InputError(f"{flow} is not deployed at {PREFECT_API_URL.value()}: {aid} deploys it") from None
    except (ParameterTypeError, SignatureMismatchError) as error:
        raise InputError(f"{flow}: {error}") from None
    except httpx.HTTPError as error:
        raise InputError(f"Prefect at {PREFECT_API_URL.value()} does not answer: {error}") from None
    print(f"{run.name}  {PREFECT_API_URL.value().removesuffix('/api')}/runs/flow-run/{run.id}")
    if not any(w.status == "ONLINE" for w in workers):
        print(f"warning: no worker serves the pool {pool!r}: the run waits until one does (`make server`)")
    if not watch:
        return 0
    ended = run_coro_as_sync(wait_for_flow_run(run.id, timeout=None))
    if ended is None or (state := ended.state) is None:
        raise InputError(f"Prefect at {PREFECT_API_URL.value()} does not say how {run.name} ended")
    print(f"{state.name}: {state.message or ''}")
    return 0 if state.is_completed() else 1


def _parameter(text):
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        raise InputError(f"{text!r}: must be PARAMETER=JSON, for instance 'styles=[\"oil\"]'") from None


if __name__ == "__main__":
    sys.exit(main())
