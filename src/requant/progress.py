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
from rich.text import Text

console = Console(markup=False, emoji=False)  # names and paths are printed as they are


def complain(error: object, heading: str = "Error") -> None:
    """Say on standard error what went wrong."""
    said = Text.assemble((f"{heading}:", "bold red"), f" {error}")
    Console(stderr=True, soft_wrap=True, highlight=False).print(said)


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
