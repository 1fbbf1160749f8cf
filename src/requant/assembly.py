"""From settings to parts: each function reads the config and returns a plain value that knows nothing of it."""

import math
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.loggers import Logger
from torch import nn

from requant import archive, data
from requant.clustering import METHODS, OPTIONS, check_granularity
from requant.config import Config, RetrainConfig, UnlabeledConfig
from requant.data.cache import cache_folder
from requant.errors import ConfigError, DataError, UserError
from requant.files import exclusive
from requant.hugging_face import is_hugging_face
from requant.machine import cores
from requant.models import Architecture, build, described, load_weights, preprocessing
from requant.network_names import name_by_content, name_in_file
from requant.outputs import Outputs, meaning
from requant.own_code import is_own
from requant.plan import Rule
from requant.progress import console
from requant.retraining import predict
from requant.runs import teacher_hash
from requant.settings import all_settings, result_settings
from requant.teacher import train_teacher


def check(settings: Config) -> None:
    """Refuse what can be refused before any work is done. Raises ConfigError or PlanError."""
    if settings.clustering.method not in METHODS:
        raise ConfigError(f"clustering.method={settings.clustering.method}: choose one of {', '.join(METHODS)}")
    clustering_options(settings)
    _check_granularity(settings)
    if settings.storage.method not in archive.STORAGES:
        raise ConfigError(f"storage.method={settings.storage.method}: choose one of {', '.join(archive.STORAGES)}")
    _check_data(settings)
    if settings.trainer.accelerator == "gpu" and not torch.cuda.is_available():
        raise ConfigError("trainer.accelerator=gpu, but torch finds no GPU here: use trainer=cpu")
    rules(settings)
    _check_one_table(settings)
    _check_bits(settings)


def _check_data(settings: Config) -> None:
    """The classes are the network's, and nothing needs labels that are not there."""
    classes = data.classes(settings.data.name, settings.data.root)
    if classes is not None and settings.model.classes != classes:
        raise ConfigError(
            f"model.classes={settings.model.classes}, but data={settings.data.name} has {classes}: "
            "set model.classes, or choose another model or data"
        )
    if classes is not None:
        return
    needing = {
        "model.weights=trained": (settings.model.weights == "trained", "model.weights=published, imagenet or <file>"),
        "retrain=conventional": (settings.retrain.method == "conventional", "retrain=proposed"),
    }
    for name, (there, instead) in needing.items():
        if there:
            raise ConfigError(f"{name} needs labelled images, and data=none has none: set {instead}, or data")


def _check_granularity(settings: Config) -> None:
    try:
        check_granularity(settings.clustering.granularity, settings.clustering.method, "clustering.granularity")
    except UserError as error:
        raise ConfigError(str(error)) from None


def _check_bits(settings: Config) -> None:
    """Entropy-coded clusters cannot have more bits than their number gives."""
    bits = settings.clustering.bits
    if bits is None:
        return
    for rule in rules(settings):
        if (rule.method or settings.clustering.method) == "entropy" and not 0 < bits <= math.log2(rule.centroids):
            raise ConfigError(
                f"clustering.bits={bits}: must be above 0, and {rule.centroids} centroids (the rule {rule}) give up to "
                f"{math.log2(rule.centroids):g}"
            )


def _check_one_table(settings: Config) -> None:
    """Where indices change they do so among the centroids of one table: say so before any work is done."""
    default = settings.clustering
    retraining = settings.retrain
    asking, instead = f"retrain={retraining.method}", "set retrain=proposed"
    moved = retraining.method == "reconstruct" or (retraining.method == "codebook" and retraining.latent_rate > 0)
    if retraining.start == "reconstruct" and not moved:
        asking, instead = "retrain.start=reconstruct", "set retrain.start=cluster"
    for rule in rules(settings) if moved or retraining.start == "reconstruct" else []:
        forms = {
            "granularity": (rule.granularity or default.granularity) != "tensor",
            "split": bool(default.split if rule.split is None else rule.split),
            "rank": rule.rank is not None,
            "method=product": (rule.method or default.method) == "product",
        }
        if wrong := [name for name, there in forms.items() if there]:
            raise ConfigError(
                f"{asking} chooses among the centroids of one table, and the rule {rule} has "
                f"{wrong[0]}: leave that out, or {instead}"
            )


def clustering_options(settings: Config) -> dict[str, Any]:
    """What the clustering method is to be told. Raises ConfigError for what it does not take."""
    method = settings.clustering.method
    known = {option for options in OPTIONS.values() for option in options}
    given = {key: value for key, value in vars(settings.clustering).items() if key in known and value is not None}
    for key in given:
        if key not in OPTIONS.get(method, ()):
            owners = " or ".join(f"clustering={owner}" for owner, taken in OPTIONS.items() if key in taken)
            raise ConfigError(f"clustering.{key}={given[key]} is for {owners}, and clustering.method={method}")
    return given


def target_bytes(settings: Config, original: int) -> int:
    """plan=auto: the size of the file, of an original of so many bytes; a tenth where another aim is set."""
    target = settings.target
    if target.size_mb is not None:
        return round(1e6 * target.size_mb)
    return round(original * (0.1 if target.reduction is None else 1 - target.reduction))


def rules(settings: Config) -> list[Rule]:
    """The plan's rules."""
    return [Rule.from_mapping(rule, position) for position, rule in enumerate(settings.plan.rules, start=1)]


def architecture(settings: Config) -> Architecture:
    """The network, without weights."""
    model = settings.model
    mean, std = (None if found is None else tuple(found) for found in (model.mean, model.std))
    found = Architecture(
        model.name, model.classes, model.channels, model.image_size, model.width, mean, std, model.outputs
    )
    return described(found) if is_hugging_face(model.name) else found


def own_network(settings: Config) -> nn.Module | None:
    """The network of somebody's own code, to be filled from a file; None: the file says what to build."""
    return build(architecture(settings)) if is_own(settings.model.name) else None


def test_images(settings: Config, teacher: nn.Module) -> data.LabelledImages:
    """What accuracy is measured on; without labels, held-out unlabeled images with the teacher's outputs as goals.

    Raises:
        DataError: for fewer images than there are processes to share them.

    """
    labelled = settings.data.name != data.NO_LABELS
    found = _test_set(settings) if labelled else _held_out_goals(settings, teacher)
    processes = settings.trainer.devices * settings.trainer.num_nodes
    if len(found) < processes:
        raise DataError(
            f"{len(found)} images to measure on are fewer than the {processes} processes that share them: set a "
            "greater data.limit or fewer trainer.devices"
        )
    return found


def _held_out_goals(settings: Config, teacher: nn.Module) -> data.LabelledImages:
    images = _images_of(_measured_on(settings), settings, "held_out")
    source, kind = settings.data, outputs(settings)
    found = predict(teacher.to(device(settings)), images, source.batch_size, source.workers, kind.name)
    teacher.cpu()
    return data.LabelledPairs(images, kind.goal(found))


def outputs(settings: Config) -> Outputs:
    """What the network's outputs are."""
    return meaning(settings.model.outputs)


def _measured_on(settings: Config) -> UnlabeledConfig:
    """The unlabeled images that stand in for test images: the same in every epoch, data.limit crops or whole ones."""
    source = settings.unlabeled
    crops = settings.data.limit if data.cuts_crops(source.name, source.crops) else None
    return replace(source, crops=crops, fresh=False)


def _test_set(settings: Config) -> data.LabelledImages:
    source, wanted = settings.data, preprocessing(architecture(settings))
    return data.labelled(source.name, "test", wanted, root=source.root, limit=source.limit)


def training_images(settings: Config, augment: str, seed: int) -> data.LabelledImages:
    """The original training images with their labels: for teachers and for the conventional baseline."""
    source = settings.data
    return data.labelled(
        source.name,
        "train",
        preprocessing(architecture(settings)),
        root=source.root,
        train_root=source.train_root,
        augment=augment,
        limit=source.train_limit,
        seed=seed,
    )


def unlabeled_images(settings: Config) -> data.UnlabeledImages:
    """What plan=auto and retraining without labels look at; where it is cut from few photographs, that is said."""
    found = _images_of(settings.unlabeled, settings, _part(settings))
    pictures = getattr(found, "pictures", None)
    if pictures is not None and len(pictures) < FEW:
        warnings.warn(
            f"all crops are of {len(pictures)} images: what is made from so few may be less near on others. A hundred "
            "or more do better: unlabeled=folder unlabeled.root=<photographs>",
            stacklevel=2,
        )
    return found


FEW = 50  # photographs: a hundred are within 4 % of four hundred (docs/tried.md)


def held_out_images(settings: Config) -> data.UnlabeledImages:
    """What target.max_drop is measured on: no training looks at these, or at other crops of them."""
    return _images_of(settings.unlabeled, settings, "held_out")


def _part(settings: Config) -> data.Part:
    """A part is held out where something is measured on unlabeled images."""
    return "all" if settings.target.max_drop is None and settings.data.name != data.NO_LABELS else "seen"


def _images_of(source: UnlabeledConfig, settings: Config, part: data.Part) -> data.UnlabeledImages:
    return data.unlabeled(
        source.name,
        preprocessing(architecture(settings)),
        root=source.root,
        crops=source.crops,
        scale=(source.scale[0], source.scale[1]),
        flip=source.flip,
        fresh=source.fresh,
        limit=source.limit,
        part=part,
        seed=settings.seed,
    )


def retrainings(settings: Config) -> Iterator[tuple[str, RetrainConfig]]:
    """Names and settings of the retrainings: `retrained`, and the baseline `conventional` where it can be done."""
    if settings.retrain.method == "none":
        return
    yield "retrained", settings.retrain
    if settings.baseline.method == "none" or settings.retrain.method == "conventional":
        return
    if data.has_training_images(settings.data.name, settings.data.train_root):
        yield "conventional", settings.baseline
    elif settings.data.name != data.NO_LABELS:
        console.print(
            f"Without the conventional baseline: data={settings.data.name} has no training images here "
            "(data.train_root=<folder> gives them; retrain@baseline=none silences this)."
        )


def retraining_images(settings: Config, recipe: RetrainConfig) -> Any:
    """What a retraining is done on."""
    if recipe.method == "conventional":
        return training_images(settings, recipe.augment, settings.seed)
    return unlabeled_images(settings)


def outputs_identity(settings: Config, teacher: str, images: str) -> dict[str, Any]:
    """What the teacher's outputs on the `test` or the `unlabeled` images depend on; `teacher` is its checksum."""
    source: Any
    part: data.Part
    if images != "test":
        source, part, batch_size = settings.unlabeled, _part(settings), settings.retrain.batch_size
    elif settings.data.name == data.NO_LABELS:
        source, part, batch_size = _measured_on(settings), "held_out", settings.data.batch_size
    else:
        source, part, batch_size = settings.data, "all", settings.data.batch_size
    cropped = source is not settings.data and data.cuts_crops(source.name, source.crops)
    seed = settings.seed if cropped else None
    return {
        "teacher": teacher,
        "architecture": architecture(settings).to_dict() | {"name": name_by_content(settings.model.name)},
        "preprocessing": asdict(preprocessing(architecture(settings))),
        "images": result_settings(source),
        "part": part,
        "files": None if source.root is None else data.fingerprint(source.root, dated=True),
        "seed": seed,
        "batch_size": batch_size,
        "device": device(settings).type,
    }


def trainer(settings: Config) -> dict[str, Any]:
    """Arguments of Lightning's Trainer."""
    names = ("accelerator", "devices", "num_nodes", "strategy", "sync_batchnorm", "precision")
    return {name: getattr(settings.trainer, name) for name in names}


def threads(settings: Config) -> int | None:
    """CPU threads of each process; None: as the environment and torch have it.

    Several processes on this machine divide its cores, which Lightning does too, but only when it starts the others.
    """
    together = settings.trainer.devices
    if settings.trainer.threads or together == 1 or "OMP_NUM_THREADS" in os.environ:
        return settings.trainer.threads
    return max(1, cores() // together)


def device(settings: Config) -> torch.device:
    """Where this process computes the teacher's outputs and final figures: one device."""
    gpu = settings.trainer.accelerator != "cpu" and torch.cuda.is_available()
    rank = next((os.environ[name] for name in ("LOCAL_RANK", "SLURM_LOCALID") if name in os.environ), "0")
    return torch.device("cuda", int(rank) % torch.cuda.device_count()) if gpu else torch.device("cpu")


def teacher(settings: Config, loggers: Sequence[Logger] = ()) -> nn.Module:
    """The network to compress, with its weights; trained first where they are `trained` and not there yet.

    `loggers` are Lightning's, for the curve of that training.
    """
    weights = settings.model.weights
    if weights == "trained":
        path = teacher_path(settings)
        if not path.exists():
            with exclusive(path.with_suffix(".lock")):
                if not path.exists():  # another process may just have made it
                    _train(settings, path, loggers)
        weights = str(path)
    torch.manual_seed(settings.seed)
    model = build(architecture(settings))
    load_weights(model, weights, architecture(settings))
    return model.to(memory_format=torch.channels_last).eval()


def teacher_path(settings: Config) -> Path:
    """Where a trained teacher is kept."""
    model = name_in_file(settings.model.name).replace(":", "-")
    name = f"{model}-{settings.data.name}-{teacher_hash(settings)}"
    return cache_folder() / "teachers" / f"{name}.safetensors"


def _train(settings: Config, path: Path, loggers: Sequence[Logger]) -> None:
    recipe = settings.teacher
    console.print(
        f"Training the teacher, once: {recipe.epochs} epochs on {settings.data.name}, kept as {path}", soft_wrap=True
    )
    train_teacher(
        path,
        architecture(settings),
        training_images(settings, recipe.augment, recipe.seed),
        data.loader(_test_set(settings), settings.data.batch_size, shuffle=False, workers=settings.data.workers),
        recipe,
        label_smoothing=recipe.label_smoothing,
        batch_norm=recipe.batch_norm,
        seed=recipe.seed,
        workers=settings.data.workers,
        trainer={"accelerator": settings.trainer.accelerator, "precision": settings.trainer.precision},
        settings=all_settings(recipe),
        loggers=loggers,
    )
