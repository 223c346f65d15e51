"""Prefect's part: when and where the pipeline runs, retries, and what its pages show.

style, retrain, sweep and team hold the flow of their name; tasks, dvc_graph and worktree are what flows share; server
and start are commands, background and deployments what server needs.
"""
