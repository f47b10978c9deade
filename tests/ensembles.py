"""What the tests of ensembles share: a small pool of learners, and three networks together."""

from __future__ import annotations

from test_search import TINY
from tutelage.config import Run
from tutelage.run.networks.ensemble import Ensemble
from tutelage.spaces.published import PUBLISHED

POOL = {"name": "nes", "learners": 3, "members": 2}
GENOTYPES = tuple(PUBLISHED[name] for name in ("DARTS_V2", "PDARTS", "DARTS_V1"))
TOGETHER = Ensemble((2, 0, 1), GENOTYPES, {"valid_loss": 0.5, "valid_accuracy": 0.75})


def pool(**settings):
    return Run(method=POOL, **{**TINY, **settings})
