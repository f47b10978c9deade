"""How far EnNAS' samplers are from drawing every operator equally often, rule by rule.

    python benchmarks/sampler.py [--operators 10] [--students 4] [--layers 100] [--draws 100000]

For layers of random diversities in (0, 1): the lowest and highest ratio of an operator's
probability at a pick to 1 / T, computed; the same from draws, in standard deviations of the
sampling error; draws that repeat an operator; and the diversity gained over uniform sampling.
"""

from __future__ import annotations

import argparse

import torch

from tutelage.searches.diversity import Sequential, sequential, uniform

LABELS = ("rule", "lowest ratio", "highest ratio", "drawn, worst of z", "repeats", "diversity")


def random_layer(operators: int) -> torch.Tensor:
    """Draw diversities (T, T): symmetric, 0 with itself."""
    values = torch.rand(operators, operators, dtype=torch.float64).triu(1)
    return values + values.T


def worst_z(sampler: Sequential, draws: torch.Tensor) -> float:
    """Compare how often operators were drawn (count, m) with their probabilities."""
    expected = sampler.marginals()
    found = torch.stack([pick.bincount(minlength=expected.shape[1]) for pick in draws.T])
    error = (expected * (1 - expected) * len(draws)).sqrt()
    return float(((found - expected * len(draws)) / error).abs().max())


def mean_diversity(zeta: torch.Tensor, draws: torch.Tensor) -> float:
    """Average the diversity of two operators of a draw (count, m)."""
    m = draws.shape[1]
    pairs = zeta[draws.unsqueeze(2), draws.unsqueeze(1)].sum((1, 2)) / (m * (m - 1))
    return float(pairs.mean())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--operators", type=int, default=10)
    parser.add_argument("--students", type=int, default=4)
    parser.add_argument("--layers", type=int, default=100)
    parser.add_argument("--draws", type=int, default=100_000)
    options = parser.parse_args()
    torch.manual_seed(0)
    layers = [random_layer(options.operators) for _ in range(options.layers)]
    even = uniform(options.operators, options.students).draw(options.draws)
    print(f"| {' | '.join(LABELS)} |\n|{'---|' * len(LABELS)}")
    for rule in ("exact", "printed", "direct"):
        samplers = [sequential(zeta, options.students, rule) for zeta in layers]
        ratios = torch.stack([each.marginals() for each in samplers]) * options.operators
        draws = samplers[0].draw(options.draws)
        repeats = (draws.sort(1).values.diff(dim=1) == 0).any(1).sum()
        gain = mean_diversity(layers[0], draws) / mean_diversity(layers[0], even)
        low, high = ratios.min() - 1, ratios.max() - 1
        print(
            f"| {rule} | 1 {low:+.1e} | 1 {high:+.1e} | {worst_z(samplers[0], draws):.1f} | "
            f"{repeats} | {gain:.3f} x uniform |"
        )


if __name__ == "__main__":
    main()
