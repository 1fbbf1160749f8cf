"""Names of Hugging Face's networks: huggingface:<folder> of their files, or huggingface:<owner>/<network> on the hub.

An archive holds huggingface:<last part>, without the place.
"""

import hashlib
from functools import cache
from pathlib import Path

from requant.errors import ConfigError, first_line

HUGGING_FACE = "huggingface"
CONFIG, PREPROCESSOR, WEIGHTS = "config.json", "preprocessor_config.json", "model.safetensors"
FETCHED = (CONFIG, PREPROCESSOR, WEIGHTS, "model-*.safetensors", "model.safetensors.index.json")


def is_hugging_face(name: str) -> bool:
    """Whether a network of this name is one of Hugging Face's."""
    return name.partition(":")[0] == HUGGING_FACE


def place(name: str) -> str:
    """The folder, or the name on the hub.

    >>> place("huggingface:microsoft/resnet-18")
    'microsoft/resnet-18'
    """
    return name.partition(":")[2]


def title(name: str) -> str:
    """The name without its place.

    >>> title("huggingface:microsoft/resnet-18")
    'huggingface:resnet-18'
    """
    return f"{HUGGING_FACE}:{Path(place(name)).name}"


@cache
def folder(name: str) -> Path:
    """Where the files are; of a name on the hub fetched first, unless its cache has them.

    Raises:
        ConfigError: where they are neither here nor to be had.

    """
    path = Path(place(name)).expanduser()
    if (path / CONFIG).is_file():
        return path
    if path.is_dir():
        raise ConfigError(f"{name}: {path} has no {CONFIG}: name a folder that save_pretrained has written")
    try:
        from huggingface_hub import snapshot_download

        found = Path(snapshot_download(place(name), allow_patterns=list(FETCHED)))
    except Exception as error:  # the hub's client, its cache and HTTP each raise their own
        raise ConfigError(
            f"{name}: there is no folder {path}, and Hugging Face's hub does not give it ({first_line(error)}): "
            "name a folder that save_pretrained has written"
        ) from error
    if not (found / CONFIG).is_file():
        raise ConfigError(f"{name} has no {CONFIG} on the hub: it is no network of transformers")
    return found


def by_content(name: str) -> str:
    """The name with the sha256 of its files in the place's place: what results depend on."""
    return f"{HUGGING_FACE}:{_digest(folder(name))}"


@cache
def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted({found for pattern in FETCHED for found in path.glob(pattern)}):
        digest.update(f"{file.name} {file.stat().st_size}\n".encode())
        with file.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()
