"""Prefect's part: when, where, and what is said about it. Each file but the helpers holds the flow of its name."""
