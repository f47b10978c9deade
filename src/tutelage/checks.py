"""Refuse a bad setting when it is given: each raises ValueError with one sentence."""


def at_least(minimum: float, **values: float) -> None:
    """Raise ValueError for the first named value that is below `minimum` or not a number."""
    for name, value in values.items():
        if not value >= minimum:
            raise ValueError(f"{name} = {value}: must be at least {minimum}")


def positive(**values: float) -> None:
    """Raise ValueError for the first named value that is not above zero."""
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name} = {value}: must be above 0")


def within(low: float, high: float, **values: float) -> None:
    """Raise ValueError for the first named value outside [low, high]."""
    for name, value in values.items():
        if not low <= value <= high:
            raise ValueError(f"{name} = {value}: must lie between {low} and {high}")


def one_of(allowed: tuple[str, ...], **values: str) -> None:
    """Raise ValueError for the first named value that is not among `allowed`."""
    for name, value in values.items():
        if value not in allowed:
            raise ValueError(f"{name} = {value!r}: must be one of {', '.join(allowed)}")
