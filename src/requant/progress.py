"""Progress on the terminal: bars with the time left; nothing where the output is no terminal."""

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

console = Console()


def bar(*more: ProgressColumn) -> Progress:
    """A progress bar: what, how far, time taken, time left, and `more` columns."""
    return Progress(
        TextColumn("{task.description:<24}"),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        *more,
        console=console,
        disable=not console.is_terminal,
    )
