"""What a run can do (task=...): each reads the settings, does its stages in order, and writes a result.json."""
