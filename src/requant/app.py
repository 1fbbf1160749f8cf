"""One run, stage by stage, in order."""

import copy
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from requant import archive, assembly
from requant.compression import Compressed, check_placed, compress, place
from requant.config import Config, RetrainConfig, all_settings
from requant.data import LabelledImages, loader
from requant.evaluation import Accuracy, outputs, score
from requant.figures.run import draw_run
from requant.layers import describe
from requant.layout import RESULT
from requant.models import checksum, example_input
from requant.plan import resolve
from requant.progress import console
from requant.report import print_result
from requant.results import findings, read_result, summary, write_result
from requant.retraining import History, retrain, retrain_with_labels
from requant.runs import claimed, provenance, run_folder, settings_hash, state
from requant.teacher import keep_teacher
from requant.tracking import Tracker, tracking


def run(settings: Config) -> Path:
    """Do what the settings say; return the path of result.json. A run that is done already is only shown."""
    assembly.check(settings)
    folder = run_folder(settings)
    if settings.trainer.threads:
        torch.set_num_threads(settings.trainer.threads)
    if not _is_main():
        return _TASKS[settings.task](settings, folder)
    if settings.dry_run:
        console.print(f"{state(folder)}: {folder} (dry_run=true: nothing was started)", soft_wrap=True)
        return folder / RESULT
    with claimed(folder, settings):
        if (folder / RESULT).exists():
            console.print("This run is done already (force=true starts it over).")
            print_result(read_result(folder / RESULT), folder)
            return folder / RESULT
        return _TASKS[settings.task](settings, folder)


def _is_main() -> bool:
    """Whether this process is the first of the run's: DDP, torchrun and Slurm start the others alike."""
    return all(os.environ.get(rank, "0") == "0" for rank in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"))


@dataclass
class Run:
    """What the stages of one run share, and what they leave behind."""

    settings: Config
    folder: Path
    test: LabelledImages
    teacher: nn.Module
    compressed: Compressed
    seconds: dict[str, float]
    teacher_outputs: Tensor = field(default_factory=lambda: torch.empty(0, 0))
    reports: dict[str, archive.ArchiveReport] = field(default_factory=dict)
    accuracy: dict[str, Accuracy] = field(default_factory=dict)
    histories: dict[str, History] = field(default_factory=dict)

    def test_batches(self, shard: bool) -> DataLoader[Any]:
        """The test images: each process's share (while training), or all of them (for final figures)."""
        source = self.settings.data
        return loader(self.test, source.batch_size, shuffle=False, workers=source.workers, shard=shard)


def _train_teacher(settings: Config, folder: Path) -> Path:
    """task=teacher: train and keep the teacher, and measure it."""
    seconds: dict[str, float] = {}
    test = assembly.test_images(settings)
    with _timed(seconds, "teacher"):
        teacher = assembly.teacher(settings)
    batches = loader(test, settings.data.batch_size, shuffle=False, workers=settings.data.workers)
    found = {"accuracy": {"teacher": score(*outputs(teacher, batches)).to_dict()}}
    weights = assembly.teacher_path(settings)
    result = _header(settings, seconds) | found | {"weights": str(weights)}
    if settings.teacher.keep:
        kept = Path(settings.teacher.keep)
        keep_teacher(kept, weights, assembly.architecture(settings), batches, _header(settings, seconds))
        weights = kept
    write_result(folder, result)
    print_result(result, folder)
    console.print(f"  {weights}", soft_wrap=True, highlight=False)
    return folder / RESULT


def _compress(settings: Config, folder: Path) -> Path:
    """task=compress: teacher, plan, clustering, archive, retraining, evaluation, result."""
    seconds: dict[str, float] = {}
    todo = dict(assembly.retrainings(settings))
    test = assembly.test_images(settings)
    images = {name: assembly.retraining_images(settings, recipe) for name, recipe in todo.items()}
    with _timed(seconds, "teacher"):
        teacher = assembly.teacher(settings)
    with _timed(seconds, "cluster"):
        compressed = _quantize(settings, folder, teacher)
    teacher.to(assembly.device(settings))
    job = Run(settings, folder, test, teacher, compressed, seconds)
    if _is_main():
        _store(job, "quantized", compressed.model)
        _measure_teacher(job)
        _measure(job, "quantized")
    with _tracker(job) as tracker:
        for name, recipe in todo.items():
            student = copy.deepcopy(compressed.model)
            with _timed(seconds, name):
                job.histories[name] = _retrain(job, name, recipe, student, images[name], tracker)
            if _is_main():
                _store(job, name, student)
                _measure(job, name)
        if not _is_main():
            return folder / RESULT
        looked_at = {"test": test, **images}
        result = _header(settings, seconds) | {
            "images": {name: {"n": len(found), "skipped": list(found.skipped)} for name, found in looked_at.items()},
            **findings(compressed, job.reports, job.accuracy, job.histories),
        }
        tracker.summarise(summary(result))
        if settings.logger.artifact:
            tracker.keep(folder / f"{'retrained' if 'retrained' in job.reports else 'quantized'}.h5")
    return _finish(folder, result)


_TASKS = {"compress": _compress, "teacher": _train_teacher}


def _quantize(settings: Config, folder: Path, teacher: nn.Module) -> Compressed:
    """Cluster; a resumed run and DDP's other processes read the codebooks that are stored already."""
    path, rules, method = folder / "quantized.h5", assembly.rules(settings), settings.clustering.method
    example = example_input(assembly.architecture(settings))
    stored = archive.read(path) if path.exists() else None
    if stored is None or (stored.provenance or {}).get("teacher") != checksum(teacher):
        return compress(teacher, rules, example, method)
    codebooks = stored.codebooks
    student = copy.deepcopy(teacher)
    place(student, codebooks)
    tensors = describe(teacher, example)
    return Compressed(student, codebooks, resolve(rules, tensors, method), tensors)


def _store(job: Run, name: str, student: nn.Module) -> None:
    """Store a student; its quantized tensors must still be on their centroids."""
    check_placed(student, job.compressed.codebooks)
    with _timed(job.seconds, "store"):
        job.reports[name] = archive.save(
            job.folder / f"{name}.h5",
            student,
            job.compressed.codebooks,
            storage=job.settings.storage.method,
            architecture=assembly.architecture(job.settings).to_dict(),
            provenance={
                "hash": settings_hash(job.settings),
                "teacher": checksum(job.teacher),
                "methods": {a.tensor.name: a.method for a in job.compressed.assignments},
            },
        )


def _measure_teacher(job: Run) -> None:
    with _timed(job.seconds, "evaluate"):
        job.teacher_outputs, labels_N = outputs(job.teacher, job.test_batches(shard=False))
        job.accuracy["teacher"] = score(job.teacher_outputs, labels_N, job.teacher_outputs)


def _measure(job: Run, name: str) -> None:
    """The accuracy of a stored student, loaded back from its file."""
    with _timed(job.seconds, "evaluate"):
        student = archive.load(job.folder / f"{name}.h5").to(memory_format=torch.channels_last)
        student.to(assembly.device(job.settings))
        job.accuracy[name] = score(*outputs(student, job.test_batches(shard=False)), job.teacher_outputs)


def _retrain(job: Run, name: str, recipe: RetrainConfig, student: nn.Module, images: Any, tracker: Tracker) -> History:
    common: dict[str, Any] = {
        "codebooks": set(job.compressed.codebooks),
        "only": job.compressed.last_layer() if recipe.trainable == "last_layer" else None,
        "recipe": recipe,
        "statistics": recipe.statistics,
        "workers": job.settings.data.workers,
        "seed": job.settings.seed,
        "test": job.test_batches(shard=True),
        "folder": job.folder / name,
        "trainer": assembly.trainer(job.settings),
        "loggers": tracker.loggers(name) if _is_main() else (),
    }
    if recipe.method == "conventional":
        return retrain_with_labels(student, images, label="retrain with labels", **common)
    return retrain(
        student,
        job.teacher,
        images,
        loss=recipe.loss,
        temperature=recipe.temperature,
        teacher_outputs=recipe.teacher_outputs,
        front=recipe.front,
        in_memory=recipe.in_memory,
        label="retrain without labels",
        **common,
    )


def _tracker(job: Run) -> AbstractContextManager[Tracker]:
    logger = job.settings.logger
    if not _is_main():
        return nullcontext(Tracker())
    return tracking(
        job.folder,
        logger.name,
        logger.project,
        logger.mode,
        group=job.settings.name,
        identity=settings_hash(job.settings),
        settings=all_settings(job.settings),
    )


def _header(settings: Config, seconds: dict[str, float]) -> dict[str, Any]:
    """What every result begins with."""
    config = {"config": all_settings(settings), "hash": settings_hash(settings)}
    return {**config, **provenance(), "seconds": seconds}


def _finish(folder: Path, result: dict[str, Any]) -> Path:
    """Draw, write result.json last, remove checkpoints, show."""
    draw_run(result, folder / "summary.png")
    path = write_result(folder, result)
    for checkpoint in folder.glob("*/last.ckpt"):
        checkpoint.unlink()
    print_result(result, folder)
    return path


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Add the time of a stage."""
    started = time.perf_counter()
    yield
    seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - started
