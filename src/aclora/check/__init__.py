"""What a run would read, looked at before any work begins and before DVC removes an out."""
