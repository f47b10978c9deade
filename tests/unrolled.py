"""The slow, obvious hypergradient: every step kept in one autograd graph."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from tutelage.trees import detach, leaves, rebuild


def loss_of(level, values, batch):
    aliases = {
        alias: detach(values[name]) if name == level.variable else values[name]
        for alias, name in level.aliases.items()
    }
    result = level.loss(SimpleNamespace(**values, **aliases), batch)
    return result[0] if isinstance(result, tuple) else result


def unrolled(levels, variables, batch, rates, velocities=None):
    """Differentiate the top's loss by unrolling every lower level with create_graph=True."""
    top = levels[-1].variable
    values = {
        name: rebuild(
            tree,
            iter([x.detach().clone().requires_grad_(x.is_floating_point()) for x in leaves(tree)]),
        )
        for name, tree in variables.items()
    }
    target = leaves(values[top])
    present = dict(values)
    buffers = {name: leaves(tree) for name, tree in (velocities or {}).items()}
    for level in (level for level in levels if level.variable != top):
        if level.variable not in rates:
            continue
        lr, momentum, decay, clip, nesterov = rates[level.variable]
        for _ in range(level.steps):
            tree = values[level.variable]
            # names of their own: what a level below has read of them is given, not a path
            w = [x.view_as(x) for x in leaves(tree)]
            loss = loss_of(level, {**values, level.variable: rebuild(tree, iter(w))}, batch)
            g = list(
                torch.autograd.grad(
                    loss, w, create_graph=True, allow_unused=True, materialize_grads=True
                )
            )
            if clip:
                start = 0
                for learner in tree if isinstance(tree, list) else [tree]:
                    count = len(leaves(learner))
                    total = sum((x**2).sum() for x in g[start : start + count]) ** 0.5
                    if total + 1e-6 > clip:
                        for i in range(start, start + count):
                            g[i] = g[i] * clip / (total + 1e-6)
                    start += count
            old = buffers.get(level.variable, [torch.zeros_like(x) for x in w])
            d = [x + decay * y for x, y in zip(g, w, strict=True)]
            step = [momentum * b + x for b, x in zip(old, d, strict=True)]
            buffers[level.variable] = step
            if nesterov:
                step = [x + momentum * v for x, v in zip(d, step, strict=True)]
            moved = [y - lr * x for x, y in zip(step, w, strict=True)]
            values[level.variable] = rebuild(tree, iter(moved))
    read = {"virtual": values, "present": present}
    value = sum(loss_of(x, read[x.reads], batch) for x in levels if x.variable == top)
    found = torch.autograd.grad(value, target, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(target, found, strict=True)]
