"""One run: whether it has to be done, and which task does it."""

from pathlib import Path

from requant import assembly
from requant.config import Config
from requant.layout import RESULT
from requant.machine import keep_memory, use_threads
from requant.progress import console
from requant.report import print_result
from requant.results import read_result
from requant.runs import claimed, run_folder, state
from requant.tasks.common import is_main
from requant.tasks.compressing import compress_network
from requant.tasks.studying import measure_sensitivity
from requant.tasks.teaching import train_teacher

_TASKS = {"compress": compress_network, "teacher": train_teacher, "sensitivity": measure_sensitivity}


def run(settings: Config) -> Path:
    """Do what the settings say; return the path of result.json. A run that is done already is only shown."""
    assembly.check(settings)
    folder = run_folder(settings)
    keep_memory()
    use_threads(assembly.threads(settings))
    if settings.dry_run:
        if is_main():
            console.print(f"{state(folder)}: {folder} (dry_run=true: nothing was started)", soft_wrap=True)
        return folder / RESULT
    if not is_main():
        done = (folder / RESULT).exists() and not settings.force
        return folder / RESULT if done else _TASKS[settings.task](settings, folder)
    with claimed(folder, settings):
        if (folder / RESULT).exists():
            console.print("This run is done already (force=true starts it over).")
            print_result(read_result(folder / RESULT), folder)
            return folder / RESULT
        return _TASKS[settings.task](settings, folder)
