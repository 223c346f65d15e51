"""What stands around a run: git, DVC, fingerprints, child processes."""
