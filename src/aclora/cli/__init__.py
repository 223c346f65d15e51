"""The `aclora` command: one file for each group of commands."""
