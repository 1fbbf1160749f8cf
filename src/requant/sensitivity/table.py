"""points.csv: a row for each point that is measured; the file is replaced whole, so that a kill loses no row."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from requant.errors import UserError
from requant.files import write_text
from requant.progress import bar, console
from requant.results import TEXT
from requant.sensitivity.grid import Point
from requant.sensitivity.study import Measured, Study

LINES = 10  # of progress, where the output is no terminal


class Table:
    """The rows of one study.

    Args:
        path: the csv; rows that are there are kept.
        shared: columns that all new rows share: what was measured, on which data, by which code.

    Raises:
        UserError: a file that is no such table.

    """

    def __init__(self, path: Path, shared: Mapping[str, Any]) -> None:
        self._path, self._shared = path, dict(shared)
        self._rows = _read(path) if path.exists() else []

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def done(self) -> set[Point]:
        """The points that have a row."""
        return {Point(row["kind"], row["layers"], int(row["centroids"])) for row in self._rows}

    def append(self, measured: Measured) -> None:
        """Write one more row."""
        point, accuracy = measured.point, measured.accuracy
        found = {
            "kind": point.kind,
            "layers": point.layers,
            "centroids": point.centroids,
            "bytes": measured.bytes,
            "correct": accuracy.correct,
            "n": accuracy.n,
            "agreement": accuracy.agreement,
            "kl": accuracy.kl,
            "seconds": round(measured.seconds, 2),
        }
        self._rows.append(found | self._shared)
        write_text(self._path, pd.DataFrame(self._rows).to_csv(index=False))


def measure_all(study: Study, points: Collection[Point], table: Table) -> None:
    """Measure points into the table, with the time left by how much of the network each has to evaluate."""
    with bar() as progress:
        task = progress.add_task(f"{len(points)} points", total=sum(map(study.seconds, points)))
        for done, measured in enumerate(study.measure(points), 1):
            table.append(measured)
            progress.advance(task, study.seconds(measured.point))
            if not console.is_terminal and (done % max(1, len(points) // LINES) == 0 or done == len(points)):
                console.print(f"{done} of {len(points)} points", highlight=False)


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        frame = pd.read_csv(path, dtype=TEXT)
        rows = [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]
        Point(rows[0]["kind"], rows[0]["layers"], int(rows[0]["centroids"]))
    except (ValueError, KeyError, IndexError) as error:
        raise UserError(
            f"{path} is no table of points ({error!r}): remove it, or start over with force=true"
        ) from error
    return rows
