"""Three levels by hand: the gradient through two virtual steps, against the chain rule on paper."""

import torch

from tutelage import Exact, FiniteDifference, FirstOrder, Level, hypergradient
from tutelage.virtual import Rate

LR = 0.1


def fit(s, batch):  # v minimises (v - a)^2 / 2
    return (s.v - s.a) ** 2 / 2


def follow(s, batch):  # w minimises (w - v)^4 / 4, given v
    return (s.w - s.v) ** 4 / 4


def judge(s, batch):  # a minimises w^2 / 2, given w
    return s.w**2 / 2


def main() -> None:
    start = {"v": 2.0, "w": 3.0, "a": 1.0}
    variables = {name: torch.tensor(x, dtype=torch.float64) for name, x in start.items()}
    levels = [Level("v", fit), Level("w", follow), Level("a", judge, optimiser="alphas")]
    rates = {"v": Rate(LR), "w": Rate(LR)}
    v = 2.0 - LR * (2.0 - 1.0)
    w = 3.0 - LR * (3.0 - v) ** 3
    print(f"on paper            {w * 3 * LR * (3.0 - v) ** 2 * LR:.8f}")
    for via in (Exact(), FiniteDifference(1e-3), FirstOrder()):
        found = hypergradient(levels, variables, None, rates, via)
        print(f"{type(via).__name__:19} {float(found.gradient):.8f}")


if __name__ == "__main__":
    main()
