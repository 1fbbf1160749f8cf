"""How much each layer bears: one layer at a time, at each k, size and accuracy."""

from requant.sensitivity.grid import Point, grid
from requant.sensitivity.study import Measured, Study
from requant.sensitivity.table import Table, measure_all

__all__ = ["Measured", "Point", "Study", "Table", "grid", "measure_all"]
