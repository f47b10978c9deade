"""Genes are read back from architectures, and from the paths that run them."""

import pytest
import torch

from tutelage.spaces.cells import DARTS, S3
from tutelage.spaces.chain import ENNAS_S2, NASBENCH_MACRO
from tutelage.spaces.nb201 import NASBENCH201
from tutelage.spaces.paths import architecture, encode, genotype, path, sample

SPACES = [NASBENCH_MACRO, ENNAS_S2, NASBENCH201, DARTS, S3]


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
def test_genes_come_back_from_a_genotype_and_from_a_path(space):
    for _ in range(20):
        encoding = sample(space)
        found = genotype(space, encoding)
        assert encode(space, found) == encoding
        arch = path(space, encoding, torch.device("cpu"), torch.float32)
        assert architecture(space, arch) == found
