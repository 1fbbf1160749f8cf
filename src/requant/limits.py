"""Limits that several parts share."""

MAX_CENTROIDS = 4096
"""Of a table: in plans, clusterings and archives alike."""
