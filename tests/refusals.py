"""What tests of tables ask of a refusal."""

import pytest


def fails(call, *words, error=ValueError):
    """A call is refused in one line that has these words."""
    with pytest.raises(error) as caught:
        call()
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)
