"""task=compress."""

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from requant import archive, assembly
from requant.auto import Grids, grids_for, in_units
from requant.codebook_forms import AnyCodebook
from requant.compression import Compressed, check_placed, compress, place
from requant.config import Config, RetrainConfig
from requant.data import LabelledImages, loader
from requant.evaluation import outputs
from requant.figures.run import draw_run
from requant.layers import describe
from requant.layout import RESULT
from requant.models import checksum, example_input
from requant.plan import Assignment, resolve
from requant.progress import console
from requant.reconstruction import at_places, batches_of, reconstruct
from requant.reconstruction.dreams import dreamed
from requant.report import print_result
from requant.results import ending, findings, measure, summary, write_result
from requant.retraining import History, Movement, retrain, retrain_codebooks, retrain_with_labels
from requant.retraining.harm import compared, moved_away
from requant.runs import settings_hash
from requant.scoring import Accuracy, score
from requant.settings import all_settings, settings_of_file
from requant.shared import Shared, SharedClusterer, shared
from requant.targets import GRAIN, TRAINED, fit_drop, fit_size
from requant.tasks.common import forms, header, is_main, timed, tracker_of
from requant.tracking import Tracker


@dataclass
class Run:
    """What the stages of one run share, and what they leave behind."""

    settings: Config
    folder: Path
    test: LabelledImages
    teacher: nn.Module
    compressed: Compressed
    grids: Grids | None
    seconds: dict[str, float]
    teacher_outputs: Tensor = field(default_factory=lambda: torch.empty(0, 0))
    reports: dict[str, archive.ArchiveReport] = field(default_factory=dict)
    accuracy: dict[str, Accuracy] = field(default_factory=dict)
    histories: dict[str, History] = field(default_factory=dict)

    def test_batches(self, shard: bool) -> DataLoader[Any]:
        """The test images: each process's share (while training), or all of them (for final figures)."""
        source = self.settings.data
        return loader(self.test, source.batch_size, shuffle=False, workers=source.workers, shard=shard)


def compress_network(settings: Config, folder: Path) -> Path:
    """Teacher, plan, clustering, archive, retraining, evaluation, result."""
    seconds: dict[str, float] = {}
    todo = dict(assembly.retrainings(settings))
    images = {name: assembly.retraining_images(settings, recipe) for name, recipe in todo.items()}
    with timed(seconds, "teacher"):
        teacher = assembly.teacher(settings)
    test = assembly.test_images(settings, teacher)
    with timed(seconds, "cluster"):
        found = _grids(settings, teacher) if settings.plan.method == "auto" else None
        compressed = _quantize(settings, folder, teacher) if found is None else _at_target(settings, found)
    device = assembly.device(settings)
    teacher.to(device)
    job = Run(settings, folder, test, teacher, compressed, found, seconds)
    if is_main():
        _store(job, "quantized", compressed.model, compressed.codebooks)
        _measure_teacher(job)
        _measure(job, "quantized")
    students = {}
    with tracker_of(job.settings, job.folder) as tracker:
        for name, recipe in todo.items():
            student, codebooks = copy.deepcopy(compressed.model).to(device), compressed.codebooks
            with timed(seconds, name):
                if "reconstruct" in (recipe.method, recipe.start):
                    student, codebooks = _reconstruct(job, name, recipe, images[name])
                if recipe.method != "reconstruct":
                    start = (copy.deepcopy(student), codebooks) if recipe.start == "reconstruct" else None
                    codebooks = _retrain(job, name, recipe, student, codebooks, images[name], tracker)
                    if start is not None and _moved_away(job, name, start[0], student, images[name]):
                        student, codebooks = start
            students[name] = (student, codebooks)
        if not is_main():
            return folder / RESULT
        for name, (student, codebooks) in students.items():  # only now: between trainings other processes would wait
            _store(job, name, student, codebooks)
            _measure(job, name)
        ended = compressed
        if "retrained" in students:
            codebooks = students["retrained"][1]
            assignments = compressed.assignments if found is None else found.assignments(codebooks)
            ended = replace(compressed, codebooks=codebooks, assignments=assignments)
        looked_at = {"test": test, **images}
        result = header(settings, seconds) | {
            "images": {name: {"n": len(found), "skipped": list(found.skipped)} for name, found in looked_at.items()},
            **findings(ended, job.reports, job.accuracy, job.histories),
        }
        tracker.summarise(summary(result))
        if settings.logger.artifact:
            tracker.keep(folder / f"{ending(job.reports)}.h5")
    return _finish(folder, result)


def _quantize(settings: Config, folder: Path, teacher: nn.Module) -> Compressed:
    """Cluster; a resumed run and DDP's other processes read the codebooks that are stored already."""
    path, rules, clustering = folder / "quantized.h5", assembly.rules(settings), settings.clustering
    example = example_input(assembly.architecture(settings))
    stored = archive.read(path) if path.exists() else None
    if stored is None or (stored.provenance or {}).get("teacher") != checksum(teacher):
        clusterer, options = SharedClusterer(), assembly.clustering_options(settings)
        found = compress(teacher, rules, example, clustering.method, options, clusterer=clusterer, **forms(settings))
        if clusterer.found:
            console.print(f"Clusters of {clusterer.found} tensors: kept from an earlier run")
        model, codebooks = archive.shortened(found.model, found.codebooks, settings.storage.centroids)
        return replace(found, model=model, codebooks=codebooks)
    codebooks = stored.codebooks
    student = copy.deepcopy(teacher)
    place(student, codebooks)
    tensors = describe(teacher, example)
    return Compressed(student, codebooks, resolve(rules, tensors, clustering.method, **forms(settings)), tensors)


def _grids(settings: Config, teacher: nn.Module) -> Grids:
    """plan=auto: steps for each layer's weights, by what rounding it does to the outputs on unlabeled images."""
    example = example_input(assembly.architecture(settings))
    return grids_for(
        teacher,
        example,
        assembly.unlabeled_images(settings),
        settings.plan.images,
        lambda found: assembly.target_bytes(settings, found.original_bytes),
        settings.seed,
        assembly.outputs(settings),
        settings.plan.rotate,
    )


def _at_target(
    settings: Config,
    found: Grids,
    batches: Sequence[Tensor] = (),
    recipe: RetrainConfig | None = None,
    dreams: Sequence[Tensor] = (),
) -> Compressed:
    """plan=auto: the network on grids that meets the target; reconstructed where there are images."""
    most, damping = settings.target.max_drop, recipe.damping if recipe else None
    # Training codebooks moves indices, which a trellis ties to each other.
    trellis = settings.plan.trellis and recipe is not None and recipe.method != "codebook"
    grain = GRAIN if recipe is not None and recipe.method in ("reconstruct", "codebook") else 0.0
    if most is not None:
        # What is only rounded may miss the drop where a reconstruction follows, which meets it or says that it cannot.
        follows = not batches and "reconstruct" in (settings.retrain.method, settings.retrain.start)
        device = next(found.base.parameters()).device
        return fit_drop(
            found,
            most,
            [batch.to(device) for batch in _held_out(settings)],
            lambda made: _as_stored(settings, found, made.model, made.codebooks)[0],
            batches,
            damping,
            trellis,
            grain,
            finest=follows,
            dreams=dreams,
            balance=settings.plan.balance,
        )

    def size(compressed: Compressed) -> int:
        model, codebooks = _as_stored(settings, found, compressed.model, compressed.codebooks)
        architecture = assembly.architecture(settings).to_dict()
        provenance = _provenance(settings, found.base, compressed)  # as long as that of the file to come
        return archive.file_size(model, codebooks, storage="entropy", architecture=architecture, provenance=provenance)

    target = assembly.target_bytes(settings, found.original_bytes)
    if settings.retrain.method == "codebook":
        target = round(TRAINED * target)
    return fit_size(found, size, target, batches, damping, trellis, grain, dreams, settings.plan.balance)


def _held_out(settings: Config) -> list[Tensor]:
    return batches_of(assembly.held_out_images(settings), settings.plan.held_out, settings.retrain.batch_size)


def _store(job: Run, name: str, student: nn.Module, codebooks: Mapping[str, AnyCodebook]) -> None:
    """Store a student; its quantized tensors must still be on their centroids."""
    check_placed(student, codebooks)
    storage = job.settings.storage
    student, codebooks = _as_stored(job.settings, job.grids, student, codebooks)
    with timed(job.seconds, "store"):
        job.reports[name] = archive.save(
            job.folder / f"{name}.h5",
            student,
            codebooks,
            storage=storage.method,
            architecture=assembly.architecture(job.settings).to_dict(),
            provenance=_provenance(job.settings, job.teacher, job.compressed),
        )


def _as_stored(
    settings: Config, grids: Grids | None, student: nn.Module, codebooks: Mapping[str, AnyCodebook]
) -> tuple[nn.Module, Mapping[str, AnyCodebook]]:
    """What the file will hold: in units of grids' steps, in short numbers where that is asked for."""
    if grids is not None:
        student, codebooks = in_units(grids, student, codebooks)
    return archive.shortened(student, codebooks, settings.storage.centroids, settings.storage.dense)


def _provenance(settings: Config, teacher: nn.Module, compressed: Compressed) -> dict[str, Any]:
    return {
        "hash": settings_hash(settings),
        "teacher": checksum(teacher),
        "methods": _methods(compressed.assignments),
        "settings": settings_of_file(settings),
        "versions": {name: version(name) for name in ("requant", "torch")},
    }


def _measure_teacher(job: Run) -> None:
    with timed(job.seconds, "evaluate"):
        kind = assembly.outputs(job.settings)
        found = _once(job, "test", lambda: outputs(job.teacher, job.test_batches(shard=False), kind)).tensors
        job.teacher_outputs = found["outputs"]
        job.accuracy["teacher"] = score(job.teacher_outputs, found["labels"], job.teacher_outputs, kind)


def _once(job: Run, images: str, compute: Callable[[], tuple[Tensor, ...]]) -> Shared:
    """The teacher's outputs on the test images, with labels, or on the unlabeled images: once for all runs."""
    names = ("outputs", "labels")
    identity = assembly.outputs_identity(job.settings, checksum(job.teacher), images)
    found = shared("outputs", identity, lambda: dict(zip(names, compute(), strict=False)))
    if found.found:
        console.print(f"The teacher's outputs on the {images} images: kept from an earlier run", highlight=False)
    return found


def _measure(job: Run, name: str) -> None:
    """The accuracy of a stored student, loaded back from its file."""
    with timed(job.seconds, "evaluate"):
        student = archive.load(job.folder / f"{name}.h5", assembly.own_network(job.settings))
        student.to(memory_format=torch.channels_last)
        student.to(assembly.device(job.settings))
        kind = assembly.outputs(job.settings)
        found, labels = outputs(student, job.test_batches(shard=False), kind)
        job.accuracy[name] = score(found, labels, job.teacher_outputs, kind)


def _retrain(
    job: Run,
    name: str,
    recipe: RetrainConfig,
    student: nn.Module,
    codebooks: Mapping[str, AnyCodebook],
    images: Any,
    tracker: Tracker,
) -> Mapping[str, AnyCodebook]:
    """Train a student in place; the codebooks that it is on afterwards."""
    common: dict[str, Any] = {
        "codebooks": codebooks,
        "only": job.compressed.last_layer() if recipe.trainable == "last_layer" else None,
        "recipe": recipe,
        "statistics": recipe.statistics,
        "workers": job.settings.data.workers,
        "seed": job.settings.seed,
        "test": job.test_batches(shard=True),
        "folder": job.folder / name,
        "trainer": assembly.trainer(job.settings),
        "loggers": tracker.loggers(name) if is_main() else (),
        "measure": measure(all_settings(job.settings)),
    }
    begun = job.histories[name].seconds if name in job.histories else 0.0  # a reconstruction's
    if recipe.method == "conventional":
        job.histories[name] = retrain_with_labels(student, images, label="retrain with labels", **common)
        return codebooks
    common |= {
        "loss": recipe.loss,
        "outputs": job.settings.model.outputs,
        "temperature": recipe.temperature,
        "teacher_outputs": recipe.teacher_outputs,
        "front": recipe.front,
        "in_memory": recipe.in_memory,
        "keep": lambda compute: _outputs_and_saved(_once(job, "unlabeled", lambda: (compute(),))),
        "label": "retrain without labels",
    }
    if recipe.method == "proposed":
        history = retrain(student, job.teacher, images, **common)
    else:
        grids = job.grids is not None  # at a size that was asked for
        movement = Movement(recipe.centroid_rate, recipe.latent_rate, together=grids, hold_bits=grids)
        history, codebooks = retrain_codebooks(student, job.teacher, images, movement=movement, **common)
    job.histories[name] = replace(history, start_seconds=begun)
    return codebooks


def _moved_away(job: Run, name: str, before: nn.Module, after: nn.Module, images: Any) -> bool:
    """Whether training made a reconstructed network worse; the result says so."""
    device, kind = assembly.device(job.settings), assembly.outputs(job.settings)
    batches = [batch.to(device) for batch in compared(images, job.settings.data.batch_size)]
    undone = moved_away(kind, job.teacher, before, after.to(device), batches)
    job.histories[name] = replace(job.histories[name], undone=undone)
    return undone


def _outputs_and_saved(found: Shared) -> tuple[Tensor, float]:
    return found.tensors["outputs"], found.seconds if found.found else 0.0


def _reconstruct(
    job: Run, name: str, recipe: RetrainConfig, images: Any
) -> tuple[nn.Module, Mapping[str, AnyCodebook]]:
    """retrain=reconstruct: a student whose weights are chosen anew, layer by layer, and its codebooks."""
    started = time.perf_counter()
    device = assembly.device(job.settings)
    batches = [batch.to(device) for batch in batches_of(images, recipe.images, recipe.batch_size)]
    codebooks: Mapping[str, AnyCodebook]
    kind = assembly.outputs(job.settings)
    others = at_places(images, range(recipe.images, recipe.images + recipe.dreams), recipe.batch_size)
    dreams = dreamed(job.teacher, [batch.to(device) for batch in others], kind, job.settings.seed)
    if job.grids is None:
        damping, old = recipe.damping, job.compressed.codebooks
        student, codebooks = reconstruct(job.teacher, old, batches, damping, outputs=kind, dreams=dreams)
    else:
        job.grids.base.to(device)  # plans are made on the CPU
        found = _at_target(job.settings, job.grids, batches, recipe, dreams)
        student, codebooks = found.model, found.codebooks
    seen = sum(map(len, [*batches, *dreams]))
    job.histories[name] = History([], time.perf_counter() - started, seen)
    return student, codebooks


def _methods(assignments: Sequence[Assignment]) -> str | dict[str, str]:
    """How tensors were clustered: by name, or one method for all."""
    by_name = {a.tensor.name: a.described for a in assignments}
    return next(iter(by_name.values())) if len(set(by_name.values())) == 1 else by_name


def _finish(folder: Path, result: dict[str, Any]) -> Path:
    """Draw, write result.json last, remove checkpoints, show."""
    draw_run(result, folder / "summary.png")
    path = write_result(folder, result)
    for checkpoint in folder.glob("*/last.ckpt"):
        checkpoint.unlink()
    print_result(result, folder)
    return path
