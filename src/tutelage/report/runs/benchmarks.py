"""The benchmarks whose tables a search may have used, with their names in a report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Benchmark:
    """A table of architectures; `table` in metrics.jsonl has its figures."""

    title: str
    tests: Mapping[str, str]
    """Keys of accuracies, and their data sets; ranks are by the first."""
    count: int
    """Architectures that are ranked; 0: it does not rank them."""
    training: str
    """How they were trained."""
    by_flops: float = 0.0
    """Kendall's tau of a ranking of all architectures by FLOPs alone; 0: unknown."""
    part: str = "test"
    """The images of the accuracies: test or valid."""
    how: str = ""
    """What is added to the name of a figure that was not measured."""

    @property
    def accuracy(self) -> str:
        """What the figures are."""
        return {"test": "test accuracy", "valid": "validation accuracy"}[self.part]

    @property
    def ranked_by(self) -> str:
        """The key of the accuracy that ranks are by."""
        return next(iter(self.tests))


NASBENCH201 = Benchmark(
    "NAS-Bench-201",
    {
        "cifar10_test_200": "CIFAR-10",
        "cifar100_test_200": "CIFAR-100",
        "imagenet16_test_200": "ImageNet16-120",
    },
    15_625,
    "for 200 epochs",
)
NASBENCH_MACRO = Benchmark(
    "NAS-Bench-Macro", {"cifar10_test": "CIFAR-10"}, 6_561, "three times from scratch", 0.556
)
NASBENCH301 = Benchmark(
    "NAS-Bench-301",
    {"cifar10_valid_predicted": "CIFAR-10"},
    0,
    "for 98 epochs",
    part="valid",
    how=", by a rough surrogate",
)
BENCHMARKS = (NASBENCH201, NASBENCH_MACRO, NASBENCH301)
