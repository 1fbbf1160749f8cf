"""Draw the paper's figures from experiments/*/results.csv, or collect those files: python -m requant.figures --help."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.markdown import Markdown

from requant.errors import UserError
from requant.figures.headline import CASES, cases, headline, machine_table
from requant.figures.studies import EXPERIMENTS, STUDIES, Study
from requant.figures.style import save, style
from requant.figures.tables import read_table
from requant.files import write_text
from requant.machine import hardware
from requant.progress import complain

RESULTS = "results.csv"  # at the paper's scale: imagenet.csv
TABLES = "tables"


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out one command; returns the exit code: 2 for the user's errors, 130 for Ctrl-C."""
    chosen = _parser().parse_args(arguments)
    try:
        _COMMANDS[chosen.command](chosen)
    except KeyboardInterrupt:
        return 130
    except (UserError, OSError) as error:  # OSError: a full disk, a folder that may not be written
        complain(error)
        return 2
    return 0


def draw(study: Study, experiments: Path, scale: str | None = None) -> list[Path]:
    """figure.png and figure.pdf of one study, from its results.csv; of another scale named after it."""
    folder = experiments / study.folder
    with style():
        return save(study.draw(read_table(folder / _csv(scale))), folder, scale or "figure")


def _csv(scale: str | None) -> str:
    return f"{scale}.csv" if scale else RESULTS


def _draw(chosen: argparse.Namespace) -> None:
    there = [
        name for name, study in STUDIES.items() if (chosen.experiments / study.folder / _csv(chosen.scale)).exists()
    ]
    for name in chosen.names or there:
        for path in draw(STUDIES[name], chosen.experiments, chosen.scale):
            print(path)


def _collect(chosen: argparse.Namespace) -> None:
    study = STUDIES[chosen.name]
    path = chosen.experiments / study.folder / _csv(chosen.scale)
    table = _collected(study, chosen.runs, chosen.scale) if study.runs else _layers(study)
    write_text(path, table.to_csv(index=False))
    print(f"{path}: {len(table)} rows")


def _collected(study: Study, runs: Path, scale: str | None) -> pd.DataFrame:
    """The rows of those experiments that were run; of one at least."""
    folders = [runs / name for name in study.names(scale)]
    there = [folder for folder in folders if folder.exists()] or folders[:1]
    return pd.concat([study.collect(folder) for folder in there], ignore_index=True)


def _tables(chosen: argparse.Namespace) -> None:
    """headline.md from results.csv; --collect makes that anew from the runs, and machine.md."""
    folder = chosen.experiments / TABLES
    if chosen.collect:
        there = [chosen.runs / name for name in CASES if (chosen.runs / name).exists()] or [chosen.runs / CASES[0]]
        table = pd.concat([cases(path) for path in there], ignore_index=True)
        write_text(folder / RESULTS, table.to_csv(index=False))
        write_text(folder / "machine.md", machine_table(hardware()))
    text = headline(read_table(folder / RESULTS))
    write_text(folder / "headline.md", text)
    Console(emoji=False).print(Markdown(text))
    print(folder / "headline.md")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m requant.figures", description=__doc__)
    parser.add_argument("--experiments", type=Path, default=EXPERIMENTS, metavar="FOLDER", help="default: experiments")
    parser.add_argument("--scale", choices=["imagenet"], help="the studies at the paper's scale; default: CIFAR-10's")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    command = commands.add_parser("draw", help="figure.png and figure.pdf from results.csv")
    command.add_argument("names", nargs="*", choices=[[], *STUDIES], metavar="FIGURE", help="default: all there are")
    command = commands.add_parser("collect", help="results.csv from the runs (fig05, 06, 10, 11: from the network)")
    command.add_argument("name", choices=list(STUDIES), metavar="FIGURE")
    command.add_argument("--runs", type=Path, default=Path("outputs"), metavar="FOLDER", help="default: outputs")
    command = commands.add_parser("tables", help="the paper's headline table with ours beside it, as Markdown")
    command.add_argument("--collect", action="store_true", help="from the runs of the case studies first")
    command.add_argument("--runs", type=Path, default=Path("outputs"), metavar="FOLDER", help="default: outputs")
    return parser


_COMMANDS = {"draw": _draw, "collect": _collect, "tables": _tables}


def _layers(study: Study) -> pd.DataFrame:
    from requant.layer_table import network_table  # torch, which drawing does without

    return network_table("vgg16" if "vgg16" in study.folder else "resnet50")


if __name__ == "__main__":
    sys.exit(main())
