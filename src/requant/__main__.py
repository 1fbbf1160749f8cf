"""Look at archives and at finished runs: python -m requant --help."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from requant.errors import ArchiveError, UserError
from requant.progress import complain

# What each command needs is imported when it is called: help and `runs` need no torch.


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out one command; returns the exit code: 2 for the user's errors, 130 for Ctrl-C, else the command's."""
    chosen = _parser().parse_args(arguments)
    try:
        return int(_COMMANDS[chosen.command](chosen))
    except KeyboardInterrupt:
        return 130
    except (UserError, OSError) as error:  # OSError: a full disk, a folder that may not be written
        complain(error)
        return 2


def _inspect(chosen: argparse.Namespace) -> int:
    from requant.inspection import inspect
    from requant.listing import inspection_tables, terminal

    found, console = inspect(chosen.file), terminal()
    if chosen.json:
        console.out(json.dumps(asdict(found), indent=1), highlight=False)
    else:
        console.print(*inspection_tables(found, console.width), sep="\n")
    return 0


def _verify(chosen: argparse.Namespace) -> int:
    from requant.archive import read
    from requant.listing import archive_line, terminal

    try:
        archive = read(chosen.file)
    except ArchiveError as error:
        complain(error)
        return 1
    terminal().print(archive_line(archive), soft_wrap=True)
    return 0


def _diff(chosen: argparse.Namespace) -> int:
    from requant.inspection import diff
    from requant.listing import difference_tables, terminal

    found, console = diff(chosen.a, chosen.b), terminal()
    console.print(*difference_tables(found, console.width), sep="\n")
    return 0 if found.equal else 1


def _export(chosen: argparse.Namespace) -> int:
    from requant.exporting import export_onnx, export_safetensors
    from requant.listing import terminal
    from requant.models import make
    from requant.own_code import OWN

    if chosen.onnx is None and chosen.safetensors is None:
        raise UserError("say what to write: --onnx OUT.onnx or --safetensors OUT.safetensors, or both")
    found = []
    model = None if chosen.model is None else make(f"{OWN}:{chosen.model}")
    if chosen.onnx is not None:
        found.append(export_onnx(chosen.file, chosen.onnx, dense=chosen.dense, opset=chosen.opset, model=model))
    if chosen.safetensors is not None:
        found.append(export_safetensors(chosen.file, chosen.safetensors, model))
    for written in found:
        of = f", {written.codebooks} tensors as codebooks" if written.codebooks else ""
        terminal().print(f"{written.path}: {written.bytes:,} bytes{of}", soft_wrap=True)
    return 0


def _runs(chosen: argparse.Namespace) -> int:
    from requant.files import write_text
    from requant.listing import keys_in, order, runs_tables, select, terminal
    from requant.results import collect

    everything = collect(chosen.folder)
    if everything.empty:
        raise UserError(
            f"there is no result.json below {chosen.folder}: name the folder that runs were written to (out=)"
        )
    runs = order(select(everything, chosen.where), chosen.sort)
    console = terminal()
    if len(runs):
        console.print(*runs_tables(runs, [*keys_in(chosen.where), chosen.sort], console.width), sep="\n")
    console.print(f"{len(runs)} of {len(everything)} runs")
    if chosen.csv:
        write_text(chosen.csv, runs.to_csv(index=False))
        console.print(f"Written: {chosen.csv}", soft_wrap=True)
    return 0


def _report(chosen: argparse.Namespace) -> int:
    from requant.listing import terminal
    from requant.webpage import write_page

    count = write_page(chosen.folder, chosen.out)
    terminal().print(f"{chosen.out}: {count} runs, {chosen.out.stat().st_size:,} bytes", soft_wrap=True)
    return 0


_COMMANDS = {
    "inspect": _inspect,
    "verify": _verify,
    "diff": _diff,
    "export": _export,
    "runs": _runs,
    "report": _report,
}

_RUN_KEYS = """keys, for --sort and --where (--csv writes all of them):
  settings  experiment model data clustering centroids storage retrain
            unlabeled seed hash path
  size      bytes original_bytes size_reduction (0 to 1)
  accuracy  NETWORK_top1 NETWORK_agreement (0 to 1) NETWORK_correct NETWORK_n
            NETWORK_kl (nats); NETWORK is one of
            teacher quantized retrained conventional
            (of data=none top1 is the agreement with the teacher; of model.outputs=values the variance explained)

example:
  python -m requant runs --where 'model=vgg16,centroids>=8' --sort bytes"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m requant",
        description=__doc__,
        epilog="Exit code 2: something given is wrong; the message says what. Training and compressing: run.py.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_inspect(commands)
    _add_verify(commands)
    _add_diff(commands)
    _add_export(commands)
    _add_runs(commands)
    _add_report(commands)
    return parser


def _add_inspect(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    text = "show what an archive holds: its tensors, where its bytes go, where the network comes from"
    command = commands.add_parser("inspect", help=text, description=_sentence(text))
    command.add_argument("file", type=Path, metavar="FILE", help="an archive (.h5)")
    command.add_argument("--json", action="store_true", help="print it as JSON")


def _add_verify(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    text = "read all of an archive and check it; exit code 0: ok, 1: it cannot be read, and why"
    command = commands.add_parser("verify", help=text, description=_sentence(text))
    command.add_argument("file", type=Path, metavar="FILE", help="an archive (.h5)")


def _add_diff(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    text = "compare two archives tensor by tensor; exit code 0: the same network, 1: they differ"
    command = commands.add_parser("diff", help=text, description=_sentence(text))
    command.add_argument("a", type=Path, metavar="A", help="an archive (.h5)")
    command.add_argument("b", type=Path, metavar="B", help="another")


def _add_export(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    text = "write an archive's network for other runtimes"
    command = commands.add_parser("export", help=text, description=_sentence(text))
    command.add_argument("file", type=Path, metavar="FILE", help="an archive (.h5) that says what network it is")
    command.add_argument("--onnx", type=Path, metavar="OUT", help="as ONNX, its weights as codebooks")
    command.add_argument("--dense", action="store_true", help="ONNX with ordinary float32 weights")
    command.add_argument("--opset", type=int, default=18, help="version of ONNX's operators, at least 18 (the default)")
    command.add_argument(
        "--model", metavar="FILE.py:FUNCTION", help="what makes the network, where it is of your own code"
    )
    command.add_argument("--safetensors", type=Path, metavar="OUT", help="as an ordinary state dict")


def _add_runs(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    text = "list the finished runs below a folder, one a line"
    command = commands.add_parser(
        "runs",
        help=text,
        description=_sentence(text),
        epilog=_RUN_KEYS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_folder(command)
    command.add_argument("--sort", default="path", metavar="KEY", help="the lowest first (default: path)")
    command.add_argument("--where", default="", metavar="CONDITIONS", help="only runs for which all of these hold")
    command.add_argument("--csv", type=Path, metavar="FILE", help="write these runs, with every key, as CSV")


def _add_report(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    text = "draw the finished runs below a folder as one HTML page, to be opened in a browser"
    command = commands.add_parser("report", help=text, description=_sentence(text))
    _add_folder(command)
    command.add_argument(
        "--out", type=Path, default=Path("report.html"), metavar="FILE", help="the page (default: report.html)"
    )


def _add_folder(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "folder", type=Path, nargs="?", default=Path("outputs"), metavar="FOLDER", help="default: outputs"
    )


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


if __name__ == "__main__":
    sys.exit(main())
