"""The names of the files in a run's folder."""

RESULT = "result.json"  # written last: it marks the run as done
SETTINGS = "settings.json"
LOCK = ".lock"
POINTS = "points.csv"  # task=sensitivity: a row a point
