"""A network of one's own: what a function of a Python file, or of a module, gives when it is called without arguments.

What an archive names is never run: the network is given to `requant.load` beside the file.
"""

import importlib
import importlib.util
import sys
import traceback
from functools import cache
from pathlib import Path
from types import ModuleType

from torch import nn

from requant.errors import ConfigError
from requant.models.architecture import Architecture
from requant.models.by_name import checked
from requant.models.family import Family
from requant.own_code import OWN, place_and_function, source
from requant.preprocessing import Preprocessing
from requant.suggest import did_you_mean


def make(name: str) -> nn.Module:
    """What the function of own:<file.py>:<function> gives.

    Raises:
        ConfigError: code that is not found or fails, and what is no nn.Module.

    """
    place, function = place_and_function(name)
    path = source(name)
    try:
        module = _module(path) if place.endswith(".py") else importlib.import_module(place)
        wanted = getattr(module, function, None)
        found = None if wanted is None else wanted()
    except Exception as error:  # whatever the code of others raises
        where = traceback.extract_tb(error.__traceback__)[-1]
        said = f"{type(error).__name__}: {error} ({Path(where.filename).name}, line {where.lineno})"
        raise ConfigError(f"{name} cannot be made: {said}") from error
    if wanted is None:
        there = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise ConfigError(f"{path} has no function {function!r}{did_you_mean(function, there)}")
    if not isinstance(found, nn.Module):
        raise ConfigError(f"{name} gives a {type(found).__name__}, where a torch.nn.Module is needed")
    return found


@cache
def _module(path: Path) -> ModuleType:
    """The file as a module, which may import what lies beside it."""
    spec = importlib.util.spec_from_file_location(f"{OWN}_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and the like look there
    sys.path.append(str(path.parent))
    spec.loader.exec_module(module)
    return module


def _build(architecture: Architecture) -> nn.Module:
    return checked(make(architecture.name), architecture)


def _preprocessing(architecture: Architecture) -> Preprocessing:
    if architecture.mean is None or architecture.std is None:
        raise ConfigError(
            f"{architecture.name}: say how its training images were normalised: "
            "model.mean=[...] model.std=[...], a number for each channel"
        )
    size = architecture.image_size
    return Preprocessing(size=size, resize=size, mean=architecture.mean, std=architecture.std)


FAMILY = Family(_build, _preprocessing, grey=True)
