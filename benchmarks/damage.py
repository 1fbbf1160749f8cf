"""Archives damaged at random, and what reading them does.

python -m benchmarks.damage [--tries 100000] [--forged 2000]

Of each storage a small archive is changed, of `entropy` also one that is large enough for lanes: bits flipped, ends cut
off, bytes put in or taken out, blocks swapped or zeroed. `damaged` files have the checksum that they had: each must be
refused, or hold the very same network. `forged` ones have their length and checksum made right again, as an attacker
would: each is opened in a process of its own, which may give an error or a network, and must not crash, take more than
5 s, or more than 2 GiB.

Rows go to experiments/damage/<archive>.csv batch by batch; what is there is not done again. Batch b of an archive
always draws the same changes.
"""

import csv
import hashlib
import os
import random
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import nn

from benchmarks.arguments import command_line, print_table
from requant.archive import STORAGES, Archive, envelope, read, save, shortened
from requant.codebook import Codebook
from requant.codebook_trellis import TrellisCodebook
from requant.compression import compress, place
from requant.errors import ArchiveError

FOLDER = Path(__file__).parents[1] / "experiments" / "damage"
COLUMNS = ("phase", "batch", "change", "outcome", "tries", "slowest_ms")
BATCH = {"damaged": 1000, "forged": 100}
SECONDS, MEMORY = 5, 2 << 30
SAME, REFUSED, OTHER, ERROR, CRASHED, HUNG = (
    "same network",
    "refused",
    "other network",
    "other error",
    "crashed",
    "hung",
)
ARCHIVES = {storage: (storage, 20, "1-2") for storage in STORAGES} | {"entropy_lanes": ("entropy", 5000, "1")}
"""Their storages, the outputs of the networks in them, and the layers whose biases are clustered."""
BAD = {"damaged": (OTHER, ERROR, CRASHED, HUNG), "forged": (ERROR, CRASHED, HUNG)}


def original(name: str, folder: Path) -> bytes:
    """An archive with every kind of tensor, one of them on a trellis of 64 states."""
    storage, outputs, biases = ARCHIVES[name]
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.Flatten(), nn.Linear(64, outputs))
    model.register_buffer("mask", torch.tensor([True, False]))
    rules = [{"kind": "bias", "layers": biases, "centroids": 1}, {"kind": "weight", "layers": "1", "centroids": 16}]
    found = compress(model, [*rules, {"kind": "weight", "centroids": 300}], torch.zeros(1, 3, 4, 4), "linear")
    book = found.codebooks["0.weight"]
    assert isinstance(book, Codebook)
    points = np.minimum(book.indices, book.k - 2)
    books = {**found.codebooks, "0.weight": TrellisCodebook(book.centroids, points, states=64)}
    place(found.model, books)
    short, books = shortened(found.model, books, centroids=None if storage == "gzip" else "float16")
    save(folder / "original.h5", short, books, storage=storage, provenance={"seed": 0})
    return (folder / "original.h5").read_bytes()


def bits(data: bytearray, chance: random.Random) -> None:
    """One bit, or some."""
    for _ in range(chance.choice((1, 1, 2, 8))):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def cut(data: bytearray, chance: random.Random) -> None:
    """The end goes."""
    del data[chance.randrange(len(data)) :]


def inserted(data: bytearray, chance: random.Random) -> None:
    """Bytes are put in."""
    at = chance.randrange(len(data) + 1)
    data[at:at] = chance.randbytes(chance.choice((1, 4, 100)))


def removed(data: bytearray, chance: random.Random) -> None:
    """Bytes are taken out."""
    at = chance.randrange(len(data))
    del data[at : at + chance.choice((1, 4, 100))]


def swapped(data: bytearray, chance: random.Random) -> None:
    """Two blocks change places."""
    size = chance.choice((1, 8, 64, 512))
    a, b = (chance.randrange(len(data) - size) for _ in range(2))
    data[a : a + size], data[b : b + size] = data[b : b + size], data[a : a + size]


def overwritten(data: bytearray, chance: random.Random) -> None:
    """A block becomes zeros, ones, or noise."""
    size, at = chance.choice((1, 4, 8, 64)), chance.randrange(len(data))
    data[at : at + size] = chance.choice((bytes(size), b"\xff" * size, chance.randbytes(size)))[: len(data) - at]


CHANGES = (bits, cut, inserted, removed, swapped, overwritten)


def changed(whole: bytes, chance: random.Random) -> tuple[str, bytes]:
    """What was done, and other bytes than the given ones."""
    while True:
        change, data = chance.choice(CHANGES), bytearray(whole)
        change(data, chance)
        if data != whole:
            return change.__name__, bytes(data)


def digest(archive: Archive) -> str:
    """Of all that an archive says of its network."""
    found = hashlib.sha256(repr((archive.storage, archive.architecture, archive.provenance)).encode())
    values = {name: book.dense() for name, book in archive.codebooks.items()} | archive.dense
    for name in sorted(values):
        found.update(repr((name, values[name].dtype, values[name].shape)).encode() + values[name].tobytes())
    return found.hexdigest()


def outcome(path: Path, expected: str) -> str:
    """What reading a file does."""
    try:
        return SAME if digest(read(path)) == expected else OTHER
    except ArchiveError:
        return REFUSED
    except Exception:
        return ERROR


def alone(path: Path, expected: str) -> str:
    """The same in a process of its own, with its time and memory bounded."""
    child = os.fork()
    if not child:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        signal.alarm(SECONDS)
        os._exit((SAME, OTHER, REFUSED, ERROR).index(outcome(path, expected)))
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return HUNG if os.WTERMSIG(status) == signal.SIGALRM else CRASHED
    return (SAME, OTHER, REFUSED, ERROR)[os.WEXITSTATUS(status)]


def batch(phase: str, archive: str, number: int) -> list[tuple[str, int, str, str, int, float]]:
    """The rows of a batch: how many tries of each change had each outcome."""
    chance = random.Random(f"{phase} {archive} {number}")
    counts, slowest = Counter[tuple[str, str]](), 0.0
    opened: Callable[[Path, str], str] = outcome if phase == "damaged" else alone
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as name:
        path = Path(name) / "a.h5"
        whole = original(archive, Path(name))
        expected = digest(read(Path(name) / "original.h5"))
        for _ in range(BATCH[phase]):
            change, data = changed(whole if phase == "damaged" else whole[envelope.SIZE :], chance)
            header = envelope.seal(memoryview(data), whole[8]) if phase == "forged" else b""
            path.write_bytes(header + data)
            started = time.perf_counter()
            counts[change, opened(path, expected)] += 1
            slowest = max(slowest, time.perf_counter() - started)
    found = sorted(counts.items())
    return [(phase, number, change, result, tries, round(1000 * slowest, 1)) for (change, result), tries in found]


def campaign(phase: str, archive: str, tries: int, folder: Path) -> None:
    """All batches that are missing; each in a process of its own, so that a crash is one batch's."""
    path = folder / f"{archive}.csv"
    done = {int(row["batch"]) for row in rows(path) if row["phase"] == phase}
    todo = [number for number in range(-(-tries // BATCH[phase])) if number not in done]
    for number in track(todo, f"{archive}, {phase}", console=Console(stderr=True), disable=not todo):
        child = os.fork()
        if not child:
            append(path, batch(phase, archive, number))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status:
            append(path, [(phase, number, "any", CRASHED, BATCH[phase], 0.0)])


def rows(path: Path) -> list[dict[str, str]]:
    """The rows of a csv; none where it is missing."""
    return list(csv.DictReader(path.open())) if path.exists() else []


def append(path: Path, found: list[tuple[str, int, str, str, int, float]]) -> None:
    """Add rows to a csv."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    with path.open("a", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *found] if new else found)


def show(folder: Path) -> int:
    """The table of outcomes; returns how many there were that may not be."""
    table, bad = Table("archive", "phase", "tries", "refused", "same network", "other network", "bad", "slowest, ms"), 0
    for archive in ARCHIVES:
        found = rows(folder / f"{archive}.csv")
        for phase in BATCH:
            of_phase = [row for row in found if row["phase"] == phase]
            counts = Counter[str]()
            for row in of_phase:
                counts[row["outcome"]] += int(row["tries"])
            wrong = sum(counts[kind] for kind in BAD[phase])
            slowest = max((float(row["slowest_ms"]) for row in of_phase), default=0.0)
            cells = (counts.total(), counts[REFUSED], counts[SAME], counts[OTHER], wrong, slowest)
            table.add_row(archive, phase, *(f"{cell:,}" for cell in cells))
            bad += wrong
    print_table(table)
    return bad


def main() -> None:
    """Do what is missing, and show."""
    parser = command_line(__doc__)
    parser.add_argument("--tries", type=int, default=100_000)
    parser.add_argument("--forged", type=int, default=2_000)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for archive in ARCHIVES:
        campaign("damaged", archive, given.tries, given.folder)
        campaign("forged", archive, given.forged, given.folder)
    sys.exit(1 if show(given.folder) else 0)


if __name__ == "__main__":
    main()
