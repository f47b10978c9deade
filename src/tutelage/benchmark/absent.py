"""The error for an architecture of a table's space that the table does not have."""

from __future__ import annotations


class AbsentError(ValueError):
    """The architecture is of the right space, but the table has no figures of it."""
