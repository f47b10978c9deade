"""Cream's board: paths, and the loss and FLOPs of each.

A path is a tree of tensors. A board is a tree too, so that it can be a variable of a problem: all
paths together (places first), their validation losses, their FLOPs, and their number. All stay on
the CPU, because their values select what runs and reading them there does not wait for a device.
"""

from __future__ import annotations

import torch

from tutelage.trees import leaves, tree_map


def empty(path, places):
    """Make an empty board for paths with the shapes of this one."""
    return {
        "paths": tree_map(lambda x: torch.zeros(places, *x.shape, dtype=x.dtype), path),
        "loss": torch.zeros(places, dtype=torch.float64),
        "cost": torch.zeros(places, dtype=torch.float64),
        "filled": torch.zeros((), dtype=torch.int64),
    }


def paths_of(board):
    """List the paths of a board."""
    places = range(int(board["filled"]))
    return [tree_map(lambda rows, at=at: rows[at], board["paths"]) for at in places]


def entered(board, path, loss, cost):
    """Add a path at a free place, or replace the worst of higher loss and at least its cost."""
    filled, places = int(board["filled"]), len(board["loss"])
    if any(all(map(torch.equal, leaves(path), leaves(other))) for other in paths_of(board)):
        return board
    beaten = (board["loss"] > loss) & (board["cost"] >= cost)
    if filled == places and not beaten.any():
        return board
    place = filled if filled < places else int(board["loss"].where(beaten, -torch.inf).argmax())
    paths, losses, costs = (tree_map(torch.clone, board[n]) for n in ("paths", "loss", "cost"))
    for rows, row in zip(leaves(paths), leaves(path), strict=True):
        rows[place] = row
    losses[place], costs[place] = loss, cost
    count = torch.tensor(min(filled + 1, places))
    return {"paths": paths, "loss": losses, "cost": costs, "filled": count}
