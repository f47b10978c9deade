"""Cream's board: paths, and what each was worth when it was judged.

A path is a tree of tensors. A board is a tree too, so that it is one of a problem's variables: all
paths in one (places first), their validation losses, their FLOPs, and how many there are.
All stay on the CPU: their values say what runs, and reading them makes no device wait.
"""

from __future__ import annotations

import torch

from tutelage.virtual import leaves, tree_map


def empty(path, places):
    """Make a board for paths that are like this one."""
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
    """Let a path in: at a free place, or for the worst of those that it beats at no more cost."""
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
