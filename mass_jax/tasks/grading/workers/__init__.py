"""Worker processes with hard resource limits that compare symbolic answers."""
