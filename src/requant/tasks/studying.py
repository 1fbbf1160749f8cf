"""task=sensitivity."""

from pathlib import Path
from typing import Any

from requant import assembly
from requant.config import Config
from requant.data import loader
from requant.figures.layer_map import draw_layer_map
from requant.layout import POINTS
from requant.models import example_input
from requant.plan import described
from requant.report import print_result
from requant.results import provenance, write_result
from requant.sensitivity import Study, Table, grid, measure_all
from requant.studied import read_points
from requant.tasks.common import forms, header, timed, tracker_of


def measure_sensitivity(settings: Config, folder: Path) -> Path:
    """The grid's points into points.csv; those that are there already are skipped."""
    seconds: dict[str, float] = {}
    network = assembly.architecture(settings)
    source = settings.data
    with timed(seconds, "teacher"):
        teacher = assembly.teacher(settings)
        images = assembly.test_images(settings, teacher)
        test = loader(images, source.batch_size, shuffle=False, workers=source.workers, shard=False)
        teacher.to(assembly.device(settings))
        study = Study(
            teacher,
            example_input(network),
            test,
            method=settings.clustering.method,
            storage=settings.storage.method,
            architecture=assembly.architecture(settings).to_dict(),
            clustering=forms(settings) | assembly.clustering_options(settings),
            outputs=assembly.outputs(settings),
            screen=settings.sensitivity.screen,
        )
    wanted = settings.sensitivity
    points = grid(study.tensors, wanted.kinds, wanted.layers, wanted.centroids)
    origin = header(settings, seconds)
    table, picture = Table(folder / POINTS, _shared_columns(origin, study)), folder / "summary.png"
    with tracker_of(settings, folder) as tracker:
        with timed(seconds, "points"):
            measure_all(study, [point for point in points if point not in table.done], table)
        found = read_points(folder / POINTS)
        draw_layer_map(found, f"{network.name} on {source.name}", picture)
        tracker.summarise({"teacher_top1": study.teacher.top1, "points": len(table)})
        tracker.table("points", found)
        tracker.picture("summary", picture)
    size = {"original_bytes": study.original_bytes}
    result = origin | {"accuracy": {"teacher": study.teacher.to_dict()}, "points": len(table), **size}
    path = write_result(folder, result)
    print_result(result, folder)
    return path


def _shared_columns(header: dict[str, Any], study: Study) -> dict[str, Any]:
    """Where a point's row comes from."""
    config = header["config"]
    return {
        "teacher_correct": study.teacher.correct,
        "original_bytes": study.original_bytes,
        "model": config["model"]["name"],
        "data": config["data"]["name"],
        "clustering": described(
            **{key: config["clustering"][key] for key in ("method", "granularity", "block", "split")}
        ),
        "storage": config["storage"]["method"],
        "seed": config["seed"],
        **provenance(header),
    }
