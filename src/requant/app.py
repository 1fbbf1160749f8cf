"""One run, stage by stage, in order. The only place that reads the config."""

import copy
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from requant import archive, data
from requant.clustering import METHODS
from requant.compression import Compressed, check_placed, compress, place
from requant.config import Config, RetrainConfig, all_settings
from requant.data.cache import cache_folder
from requant.errors import ConfigError
from requant.evaluation import Accuracy, outputs, score
from requant.figures.run import draw_run
from requant.layers import describe
from requant.models import Architecture, build, checksum, example_input, load_weights, preprocessing
from requant.plan import Rule, resolve
from requant.preprocessing import Preprocessing
from requant.progress import console
from requant.report import print_result
from requant.results import RESULT, read_result, write_result
from requant.retraining import History, retrain, retrain_with_labels
from requant.runs import claim, provenance, run_folder, settings_hash, teacher_hash
from requant.teacher import train_teacher
from requant.tracking import Tracker, tracking


@dataclass
class Run:
    """What the stages of a run share."""

    settings: Config
    folder: Path
    architecture: Architecture
    preprocessing: Preprocessing
    seconds: dict[str, float] = field(default_factory=dict)
    reports: dict[str, archive.ArchiveReport] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage."""
        started = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started


def run(settings: Config) -> Path:
    """Do what the settings say; return the path of result.json. A run that is done already is only shown."""
    _check(settings)
    folder = run_folder(settings)
    if settings.trainer.threads:
        torch.set_num_threads(settings.trainer.threads)
    if _is_main() and settings.force:
        shutil.rmtree(folder, ignore_errors=True)
    if (folder / RESULT).exists() and _is_main():
        console.print(f"This run is done already (force=true starts it over): {folder}")
        print_result(read_result(folder / RESULT), folder)
        return folder / RESULT
    if _is_main():
        claim(folder, settings)
    architecture = _architecture(settings)
    job = Run(settings, folder, architecture, preprocessing(architecture))
    task = {"compress": _compress, "teacher": _teacher}[settings.task]
    return task(job)


def _check(settings: Config) -> None:
    """What can be refused before any work is done."""
    if settings.clustering.method not in METHODS:
        raise ConfigError(f"clustering.method={settings.clustering.method}: choose one of {', '.join(METHODS)}")
    if settings.storage.method not in archive.STORAGES:
        raise ConfigError(f"storage.method={settings.storage.method}: choose one of {', '.join(archive.STORAGES)}")
    if settings.model.classes != data.classes(settings.data.name):
        raise ConfigError(
            f"model.classes={settings.model.classes}, but data={settings.data.name} has "
            f"{data.classes(settings.data.name)}: set model.classes, or another model or data"
        )
    for position, rule in enumerate(settings.plan.rules, start=1):
        Rule.from_mapping(rule, position)


def _is_main() -> bool:
    """Whether this process is the first of the run's (DDP starts the others with the same command line)."""
    return os.environ.get("LOCAL_RANK", "0") == "0" and os.environ.get("NODE_RANK", "0") == "0"


def _architecture(settings: Config) -> Architecture:
    model = settings.model
    return Architecture(model.name, model.classes, model.channels, model.image_size, model.width)


# --- the teacher -----------------------------------------------------------------------------------------------------


def _teacher(job: Run) -> Path:
    """task=teacher: train and keep the teacher, and measure it."""
    test = _test_images(job)
    with job.stage("teacher"):
        teacher = _load_teacher(job, test)
    accuracy = {"teacher": score(*outputs(teacher, test)).to_dict()}
    path = write_result(job.folder, _header(job) | {"accuracy": accuracy, "weights": str(_teacher_path(job))})
    print_result(read_result(path), job.folder)
    return path


def _load_teacher(job: Run, test: DataLoader[Any]) -> nn.Module:
    """The network to compress, with its weights; trained first where they are `trained` and not there yet."""
    weights = job.settings.model.weights
    if weights == "trained":
        path = _teacher_path(job)
        if not path.exists():
            return _train_teacher(job, path, test)
        weights = str(path)
    torch.manual_seed(job.settings.seed)
    teacher = build(job.architecture)
    load_weights(teacher, weights, job.architecture)
    return teacher.to(memory_format=torch.channels_last).eval()


def _teacher_path(job: Run) -> Path:
    name = f"{job.architecture.name.replace(':', '-')}-{job.settings.data.name}-{teacher_hash(job.settings)}"
    return cache_folder() / "teachers" / f"{name}.safetensors"


def _train_teacher(job: Run, path: Path, test: DataLoader[Any]) -> nn.Module:
    recipe = job.settings.teacher
    console.print(f"Training the teacher ({recipe.epochs} epochs on {job.settings.data.name}), once: {path}")
    return train_teacher(
        path,
        job.architecture,
        _training_images(job, recipe.augment, recipe.seed),
        test,
        recipe,
        label_smoothing=recipe.label_smoothing,
        seed=recipe.seed,
        workers=job.settings.data.workers,
        trainer={"accelerator": job.settings.trainer.accelerator, "precision": job.settings.trainer.precision},
        settings=all_settings(recipe),
    ).eval()


# --- images ----------------------------------------------------------------------------------------------------------


def _test_images(job: Run) -> DataLoader[Any]:
    source = job.settings.data
    images = data.labelled(source.name, "test", job.preprocessing, root=source.root, limit=source.limit)
    return data.loader(images, source.batch_size, shuffle=False, workers=source.workers)


def _training_images(job: Run, augment: str, seed: int) -> data.LabelledImages:
    source = job.settings.data
    return data.labelled(
        source.name,
        "train",
        job.preprocessing,
        root=source.root,
        train_root=source.train_root,
        augment=augment,
        limit=source.train_limit,
        seed=seed,
    )


def _unlabeled_images(job: Run) -> data.UnlabeledImages:
    source = job.settings.unlabeled
    return data.unlabeled(
        source.name,
        job.preprocessing,
        root=source.root,
        crops=source.crops,
        scale=(source.scale[0], source.scale[1]),
        flip=source.flip,
        fresh=source.fresh,
        limit=source.limit,
        seed=job.settings.seed,
    )


# --- compress, retrain, measure --------------------------------------------------------------------------------------


def _compress(job: Run) -> Path:
    """task=compress: teacher, plan, clustering, archive, retraining, evaluation, result."""
    settings = job.settings
    test = _test_images(job)
    with job.stage("teacher"):
        teacher = _load_teacher(job, test)
    compressed = _quantize(job, teacher)
    accuracy: dict[str, Accuracy] = {}
    teacher_NC, labels_N = _NOTHING
    if _is_main():
        with job.stage("evaluate"):
            teacher_NC, labels_N = outputs(teacher, test)
            accuracy["teacher"] = score(teacher_NC, labels_N, teacher_NC)
            accuracy["quantized"] = _measure(job, "quantized", test, teacher_NC)
    histories: dict[str, History] = {}
    with _tracker(job) as tracker:
        for name, recipe in _retrainings(job):
            with job.stage(name):
                student = copy.deepcopy(compressed.model)
                histories[name] = _retrain(job, name, recipe, student, teacher, compressed, test, tracker)
            if _is_main():
                _save(job, name, student, compressed, teacher)
                with job.stage("evaluate"):
                    accuracy[name] = _measure(job, name, test, teacher_NC)
        if not _is_main():
            return job.folder / RESULT
        result = _header(job) | _findings(job, compressed, accuracy, histories)
        tracker.summarise(_summary(result))
    return _finish(job, result)


_NOTHING = (torch.empty(0, 0), torch.empty(0, dtype=torch.int64))


def _quantize(job: Run, teacher: nn.Module) -> Compressed:
    """Cluster and store; a resumed run and DDP's other processes read what is stored."""
    path, settings = job.folder / "quantized.h5", job.settings
    rules = [Rule.from_mapping(rule, i) for i, rule in enumerate(settings.plan.rules, start=1)]
    example = example_input(job.architecture)
    if path.exists():
        stored = archive.read(path)
        codebooks, job.reports["quantized"] = stored.codebooks, stored.report
        tensors = describe(teacher, example)
        student = copy.deepcopy(teacher)
        place(student, codebooks)
        return Compressed(student, codebooks, resolve(rules, tensors, settings.clustering.method), tensors)
    with job.stage("cluster"):
        compressed = compress(teacher, rules, example, settings.clustering.method)
    with job.stage("store"):
        _save(job, "quantized", compressed.model, compressed, teacher)
    return compressed


def _save(job: Run, name: str, student: nn.Module, compressed: Compressed, teacher: nn.Module) -> None:
    """Store a student; its quantized tensors must still be on their centroids."""
    check_placed(student, compressed.codebooks)
    job.reports[name] = archive.save(
        job.folder / f"{name}.h5",
        student,
        compressed.codebooks,
        storage=job.settings.storage.method,
        architecture=job.architecture.to_dict(),
        provenance={"hash": settings_hash(job.settings), "teacher": checksum(teacher)},
    )


def _measure(job: Run, name: str, test: DataLoader[Any], teacher_NC: Tensor) -> Accuracy:
    """The accuracy of a stored student, loaded back from its file."""
    student = archive.load(job.folder / f"{name}.h5").to(memory_format=torch.channels_last)
    return score(*outputs(student, test), teacher_NC)


def _retrainings(job: Run) -> Iterator[tuple[str, RetrainConfig]]:
    settings = job.settings
    if settings.retrain.method == "none":
        return
    yield "retrained", settings.retrain
    if settings.baseline.method == "none" or settings.retrain.method == "conventional":
        return
    if data.has_training_images(settings.data.name, settings.data.train_root):
        yield "conventional", settings.baseline
    elif _is_main():
        console.print(
            f"Without the conventional baseline: data={settings.data.name} has no training images here "
            "(data.train_root=<folder> gives them, retrain@baseline=none silences this)"
        )


def _retrain(
    job: Run,
    name: str,
    recipe: RetrainConfig,
    student: nn.Module,
    teacher: nn.Module,
    compressed: Compressed,
    test: DataLoader[Any],
    tracker: Tracker,
) -> History:
    common: dict[str, Any] = {
        "codebooks": set(compressed.codebooks),
        "only": _last_layer(compressed) if recipe.trainable == "last_layer" else None,
        "recipe": recipe,
        "statistics": recipe.statistics,
        "workers": job.settings.data.workers,
        "seed": job.settings.seed,
        "test": test,
        "folder": job.folder / name,
        "trainer": _trainer(job.settings),
        "loggers": tracker.loggers(name) if _is_main() else (),
        "label": {"proposed": "retrain without labels", "conventional": "retrain with labels"}[recipe.method],
    }
    if recipe.method == "conventional":
        return retrain_with_labels(student, _training_images(job, recipe.augment, job.settings.seed), **common)
    return retrain(
        student,
        teacher,
        _unlabeled_images(job),
        loss=recipe.loss,
        temperature=recipe.temperature,
        teacher_outputs=recipe.teacher_outputs,
        **common,
    )


def _last_layer(compressed: Compressed) -> set[str]:
    last = max(tensor.layer for tensor in compressed.tensors)
    return {tensor.name for tensor in compressed.tensors if tensor.layer == last}


def _trainer(settings: Config) -> dict[str, Any]:
    names = ("accelerator", "devices", "num_nodes", "strategy", "sync_batchnorm", "precision")
    return {name: getattr(settings.trainer, name) for name in names}


@contextmanager
def _tracker(job: Run) -> Iterator[Tracker]:
    logger = job.settings.logger
    if not _is_main():
        yield Tracker(job.folder)
        return
    with tracking(
        job.folder,
        logger.name,
        logger.project,
        logger.mode,
        group=job.settings.name,
        identity=settings_hash(job.settings),
        settings=all_settings(job.settings),
    ) as tracker:
        yield tracker


# --- the result ------------------------------------------------------------------------------------------------------


def _header(job: Run) -> dict[str, Any]:
    return {
        "config": all_settings(job.settings),
        "hash": settings_hash(job.settings),
        **provenance(),
        "seconds": job.seconds,
    }


def _findings(
    job: Run, compressed: Compressed, accuracy: dict[str, Accuracy], histories: dict[str, History]
) -> dict[str, Any]:
    reports = job.reports
    final = reports.get("retrained", reports["quantized"])
    original = 4 * sum(tensor.values for tensor in compressed.tensors)
    found: dict[str, Any] = {
        "size": {
            "original_bytes": original,
            "quantized_bytes": reports["quantized"].bytes,
            "retrained_bytes": reports["retrained"].bytes if "retrained" in reports else None,
            "size_reduction": 1 - final.bytes / original,
            "parts": final.parts,
        },
        "accuracy": {name: found.to_dict() for name, found in accuracy.items()},
        "plan": [
            {
                "layer": a.tensor.layer,
                "kind": a.tensor.kind,
                "name": a.tensor.name,
                "values": a.tensor.values,
                "centroids": compressed.codebooks[a.tensor.name].k,
                "method": a.method,
                "bytes": final.tensors[a.tensor.name],
                "entropy_bits": compressed.codebooks[a.tensor.name].entropy_bits,
            }
            for a in compressed.assignments
        ],
    }
    keys = {"retrained": "retrain", "conventional": "baseline"}
    return found | {keys[name]: history.to_dict() for name, history in histories.items()}


def _summary(result: dict[str, Any]) -> dict[str, float]:
    """The paper's quantities, flat."""
    size, accuracy = result["size"], result["accuracy"]
    values = size["original_bytes"] / 4
    final = size["retrained_bytes"] or size["quantized_bytes"]
    flat = {
        "bytes": final,
        "bits_per_weight": 8 * final / values,
        "size_reduction": size["size_reduction"],
        "seconds": sum(result["seconds"].values()),
    }
    for name, found in accuracy.items():
        flat |= {f"{name}_top1": found["top1"], f"{name}_agreement": found["agreement"]}
    return flat


def _finish(job: Run, result: dict[str, Any]) -> Path:
    """Write result.json last, draw, tidy up, show."""
    draw_run(result, job.folder / "summary.png")
    path = write_result(job.folder, result)
    for checkpoint in job.folder.glob("*/last.ckpt"):
        checkpoint.unlink()
    print_result(result, job.folder)
    return path
