"""Spaces of cells with few operations."""

from tutelage.spaces.cells import CellSpace, everywhere

POOLED = CellSpace("pooled", everywhere("skip_connect", "max_pool_3x3", "sep_conv_3x3"))
"""Cells of skips, poolings and convolutions."""
