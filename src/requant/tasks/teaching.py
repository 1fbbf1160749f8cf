"""task=teacher."""

from pathlib import Path

from requant import assembly
from requant.config import Config
from requant.data import loader
from requant.evaluation import outputs
from requant.layout import RESULT
from requant.progress import console
from requant.report import print_result
from requant.results import write_result
from requant.scoring import score
from requant.tasks.common import header, timed, tracker_of
from requant.teacher import keep_teacher


def train_teacher(settings: Config, folder: Path) -> Path:
    """Train and keep the teacher, and measure it; return the path of result.json."""
    seconds: dict[str, float] = {}
    with tracker_of(settings, folder) as tracker:
        with timed(seconds, "teacher"):
            teacher = assembly.teacher(settings, tracker.loggers("teacher"))
        test = assembly.test_images(settings, teacher)
        batches = loader(test, settings.data.batch_size, shuffle=False, workers=settings.data.workers)
        accuracy = score(*outputs(teacher, batches))
        tracker.summarise({"teacher_top1": accuracy.top1})
    found = {"accuracy": {"teacher": accuracy.to_dict()}}
    weights = assembly.teacher_path(settings)
    result = header(settings, seconds) | found | {"weights": str(weights)}
    if settings.teacher.keep:
        kept = Path(settings.teacher.keep)
        keep_teacher(kept, weights, assembly.architecture(settings), batches, header(settings, seconds))
        weights = kept
    write_result(folder, result)
    print_result(result, folder)
    console.print(f"  {weights}", soft_wrap=True, highlight=False)
    return folder / RESULT
