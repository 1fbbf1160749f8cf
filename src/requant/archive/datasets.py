"""HDF5 data sets, read as if the file were hostile."""

from typing import Any

import h5py
import numpy as np

from requant.errors import ArchiveError


def open_dataset(
    file: h5py.File, name: str, dtype: np.dtype[Any], shape: tuple[int, ...] | None = None
) -> h5py.Dataset:
    """A data set that lies in this file, of this type and shape (None: one-dimensional, of any length).

    Links and storage that point elsewhere, and filters other than gzip, are refused: they would read other files or
    load code.

    Raises:
        ArchiveError: if it is anything else.

    """
    dataset = _hard_linked(file, name)
    _require(isinstance(dataset, h5py.Dataset), name, "is no data set")
    _require(dataset.dtype == dtype, name, f"has type {dataset.dtype}, not {dtype}")
    if shape is None:
        _require(dataset.ndim == 1, name, f"has {dataset.ndim} dimensions, not 1")
    else:
        _require(dataset.shape == shape, name, f"has shape {dataset.shape}, not {shape}")
    _require(not dataset.external and not dataset.is_virtual, name, "is stored in other files")
    _require(_filters(dataset) <= {h5py.h5z.FILTER_DEFLATE}, name, "is stored with a filter other than gzip")
    _require(dataset.nbytes <= _MAX_INFLATION * dataset.id.get_storage_size(), name, "is larger than what is stored")
    return dataset


_MAX_INFLATION = 1100  # deflate reaches 1032


def _hard_linked(file: h5py.File, name: str) -> Any:
    group: Any = file
    for part in filter(None, name.split("/")):
        _require(isinstance(group, h5py.Group) and part in group, name, "is missing")
        _require(isinstance(group.get(part, getlink=True), h5py.HardLink), name, "is a link to elsewhere")
        group = group[part]
    return group


def _filters(dataset: h5py.Dataset) -> set[int]:
    properties = dataset.id.get_create_plist()
    return {properties.get_filter(position)[0] for position in range(properties.get_nfilters())}


def _require(condition: bool, name: str, problem: str) -> None:
    if not condition:
        raise ArchiveError(f"its data set {name} {problem}")
