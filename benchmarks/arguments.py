"""The command lines of benchmarks: what goes in, and the tables that come out."""

import argparse

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

WIDEST = 1000  # characters


def command_line(text: str | None) -> argparse.ArgumentParser:
    """A parser that shows a module's docstring as it is written."""
    return argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)


def print_table(table: Table) -> None:
    """Print a table; into a file or a pipe, which have no width, as wide as it is."""
    console = Console()
    if not console.is_terminal:
        needed = Measurement.get(console, console.options.update(width=WIDEST), table).maximum
        console = Console(width=needed)
    console.print(table)
