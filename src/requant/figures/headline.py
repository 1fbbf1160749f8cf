"""The paper's headline table, ours beside the paper's values, from the results of the case studies' runs."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from requant.errors import UserError
from requant.figures.paper import RESNET50, VGG16, Reported
from requant.figures.tables import origin, way_of
from requant.layout import RESULT
from requant.results import STAGES, bytes_of, described, read_result

CASES = ("vgg16_cifar10", "resnet50_cifar10", "vgg16_imagenet", "resnet50_imagenet")
"""The experiments that the table is of."""
_ORDER = ("teacher", "quantized", "conventional", "proposed", "reconstruct", "reconstruct, proposed")
_PAPERS_MACHINE = {"GPUs": "4 x NVIDIA V100, 16 GB"}


def cases(folder: Path) -> pd.DataFrame:
    """A row for each network, way and seed below a folder; a network that several runs measured alike comes once."""
    rows = [row for path in sorted(folder.rglob(RESULT)) for row in networks(read_result(path))]
    if not rows:
        raise UserError(f"there is no {RESULT} below {folder}: run the study first")
    table = pd.DataFrame(rows)
    table["place"] = table["way"].map({way: place for place, way in enumerate(_ORDER)}).fillna(len(_ORDER))
    columns = ["model", "data", "settings", "place", "way", "seed"]
    return (
        table.sort_values(columns, kind="stable")
        .drop(columns="place")
        .drop_duplicates([column for column in columns if column != "place"], ignore_index=True)
    )


def networks(result: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What a run found of each of its networks, a row each."""
    size, config = result["size"], result["config"]
    for name, found in result["accuracy"].items():
        stage = STAGES.get(name)
        history: Mapping[str, Any] = result[stage] if stage else {}
        yield {
            "settings": described(config),
            "way": way_of(config, stage) if stage else name,
            **{key: found[key] for key in ("correct", "n", "agreement", "kl")},
            "worst_class": found["worst_class"]["top1"],
            "bytes": bytes_of(size, name),
            "original_bytes": size["original_bytes"],
            "seconds": history.get("seconds", 0.0),
            "images_seen": history.get("images_seen", 0),
            **origin(result),
        }


def headline(table: pd.DataFrame) -> str:
    """The table as Markdown: means over seeds, with the least and the greatest count where seeds differ."""
    lines = [
        "| | top-1, % | correct, least to greatest | points lost | agreement, % | worst class, % | bytes "
        "| reduction, % | seconds | seeds | the paper: top-1, % | points lost | reduction, % |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (model, data, settings), rows in table.groupby(["model", "data", "settings"], sort=False):
        reported = RESNET50 if str(model).startswith("resnet50") else VGG16
        n = rows["n"].iloc[0]
        lines.append(f"| **{model}, {data}, {settings}** (n = {n:,}) |" + 12 * " |")
        shown = None if str(settings).startswith("auto") else reported  # the paper has nothing of the kind
        lines += [_line(str(way), found, shown) for way, found in rows.groupby("way", sort=False)]
    return "\n".join(lines) + "\n"


def machine_table(hardware: Mapping[str, str]) -> str:
    """The paper's Table II: what was computed on, ours beside the paper's."""
    here = "".join(f"| {key} | {value} | {_PAPERS_MACHINE.get(key, '')} |\n" for key, value in hardware.items())
    return f"| | here | the paper |\n|---|---|---|\n{here}"


def _line(way: str, rows: pd.DataFrame, reported: Reported | None) -> str:
    top1 = 100 * (rows["correct"] / rows["n"]).mean()
    teacher = 100 * (rows["teacher_correct"] / rows["n"]).mean()
    counts = sorted({f"{correct:,}": correct for correct in rows["correct"]}, key=lambda c: int(c.replace(",", "")))
    original = way == "teacher"
    paper = getattr(reported, way, None) if reported is not None else None
    reduction = 100 * (1 - rows["bytes"].mean() / rows["original_bytes"].iloc[0])
    cells = (
        way,
        f"{top1:.2f}",
        " to ".join(dict.fromkeys((counts[0], counts[-1]))),
        "" if original else f"{teacher - top1:.2f}",
        "" if original else f"{100 * rows['agreement'].mean():.1f}",
        f"{100 * rows['worst_class'].mean():.1f}",
        f"{rows['bytes'].mean():,.0f}",
        "" if original else f"{reduction:.1f}",
        f"{rows['seconds'].mean():.0f}" if rows["seconds"].any() else "",
        f"{rows['seed'].nunique()}",
        "" if paper is None else f"{paper:.2f}",
        "" if reported is None or paper is None or original else f"{reported.teacher - paper:.2f}",
        f"{100 - reported.size:.2f}" if reported is not None and way == "proposed" else "",
    )
    return "| " + " | ".join(cells) + " |"
