"""What the tests of the command line share: short runs, and a look at what they leave."""

from pathlib import Path

SMALL = "--channels 2 --cells 3 --batch-size 4 --device cpu"
TINY = f"{SMALL} --limit-batches 2 --epochs 2 --via first-order"
BRIEF = f"{SMALL} --limit-batches 1 --epochs 1"


def content(folder: Path) -> dict[str, bytes]:
    """Every file's bytes but the lock's, to see that nothing has changed."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }
