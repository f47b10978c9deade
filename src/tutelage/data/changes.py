"""What has changed between the images that a run began with and those that it reads now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import numpy.typing as npt

from tutelage.data.digests import FILES, Numbers, digest_texts
from tutelage.data.images import Labelled
from tutelage.data.pictures import Shape

Index = npt.NDArray[np.intp]
MOST = 3
"""Classes that a sentence lists."""


@final
@dataclass(frozen=True, eq=False)
class Digests:
    """A part of a data set, as far as it is compared; N images."""

    name: str
    shape: Shape
    classes: tuple[str, ...]
    by: str
    """What `contents` are digests of, see `tutelage.data.digests`."""
    names: Numbers
    """A digest of each image's name, (N,); (0,) if they have none."""
    contents: Numbers
    """A digest of each image, (N,)."""
    labels: Numbers
    """The class of each image, (N,); 0 for unlabelled ones."""


def digests_of(part: Labelled) -> tuple[Digests, Sequence[str]]:
    """Return the digests of a part, and the names of its images, which may be none."""
    by, names, contents = part.images.identity()
    labels = part.images.labels.clamp_min(0).numpy().astype(np.uint32)
    shape, classes = part.images.shape, part.classes
    found = Digests(part.name, shape, classes, by, digest_texts(names), contents, labels)
    return found, names


def fixed_changes(before: Digests, now: Digests) -> list[str]:
    """Describe changes with which the state of a run cannot go on.

    Its classifiers have an output for each class, its stems an input for each channel, and its
    halves and epochs are numbers of images.
    """
    found = []
    if len(before.classes) != len(now.classes):
        found += _classes(before, now)
    if before.shape[0] != now.shape[0]:
        found.append(f"the images are {_colour(now)} and were {_colour(before)}")
    if len(before.contents) != len(now.contents):
        found += _counts(before, now)
    return found


def changes(before: Digests, now: Digests, names: Sequence[str]) -> list[str]:
    """Describe all changes; none, if the images are the same.

    Args:
        before: What the run began with.
        now: What was read now.
        names: The names of the images now, or none.
    """
    found = fixed_changes(before, now)
    if not found and before.classes != now.classes:
        found += _renamed(before.classes, now.classes)
    if before.shape[1:] != now.shape[1:]:
        found.append(f"the images are {_size(now)} and were {_size(before)}")
    if before.classes == now.classes:
        found += _single(before, now, names)
    if before.by == now.by and len(before.contents) == len(now.contents) and not found:
        same = np.array_equal(before.contents, now.contents)
        found += [] if same else ["the images are in another order"]
    return found


def _single(before: Digests, now: Digests, names: Sequence[str]) -> list[str]:
    """Describe changes of single images, of equal classes."""
    found: list[str] = []
    if names and len(before.names):
        new = np.flatnonzero(~np.isin(now.names, before.names))
        gone = np.flatnonzero(~np.isin(before.names, now.names))
        if len(new):
            found.append(f"{_images(new, now)} new, such as {names[new[0]]}")
        if len(gone):
            found.append(f"{_images(gone, before)} gone")
        _, old, here = np.intersect1d(before.names, now.names, return_indices=True)
    elif len(before.contents) == len(now.contents):
        old = here = np.arange(len(now.contents))
    else:
        return found

    def named(place: int) -> str:
        return names[place] if names else f"number {place}"

    changed = np.sort(here[before.labels[old] != now.labels[here]])
    if len(changed):
        first = changed[0]
        was = before.labels[old[here == first][0]]
        found.append(
            f"{len(changed):,} of {len(here):,} images have another label: {named(first)} is "
            f"{_class(now, now.labels[first])} and was {_class(before, was)}"
        )
    if before.by != now.by or before.shape != now.shape:
        return found
    changed = np.sort(here[before.contents[old] != now.contents[here]])
    if len(changed):
        what = "sizes or times of their files" if now.by == FILES else "contents"
        found.append(
            f"{_images(changed, now, verb=False)} other {what}, such as {named(changed[0])}"
        )
    return found


def _classes(before: Digests, now: Digests) -> list[str]:
    new = [f"class {name} is new" for name in now.classes if name not in before.classes]
    gone = [f"class {name} is gone" for name in before.classes if name not in now.classes]
    return [_some([*new, *gone])] if new or gone else ["classes have changed"]


def _renamed(before: Sequence[str], now: Sequence[str]) -> list[str]:
    """Describe other names of as many classes, whose numbers are their places by name."""
    gone = [name for name in before if name not in now]
    new = [name for name in now if name not in before]
    found = [f"class {old} is called {name}" for old, name in zip(gone, new, strict=True)]
    moved = [
        f"{name} has number {now.index(name)} for {before.index(name)}"
        for name in now
        if name in before and now.index(name) != before.index(name)
    ]
    return [_some(part) for part in (found, moved) if part]


def _counts(before: Digests, now: Digests) -> list[str]:
    """Describe how many images there are, in all and of the classes of both."""
    numbers = [_by_class(before), _by_class(now)]
    counts = [
        f"{numbers[1][name]:,} of {name} for {numbers[0][name]:,}"
        for name in now.classes
        if name in before.classes and numbers[0][name] != numbers[1][name]
    ]
    listed = f" ({_some(counts)})" if counts else ""
    return [f"the images are {len(now.contents):,} and were {len(before.contents):,}{listed}"]


def _by_class(part: Digests) -> Counter[str]:
    return Counter({_class(part, k): n for k, n in enumerate(np.bincount(part.labels).tolist())})


def _class(part: Digests, label: int) -> str:
    return part.classes[label] if part.classes else "unlabelled"


def _images(index: Index, part: Digests, verb: bool = True) -> str:
    """Describe how many images of which classes an index (B,) has; "are", or "have"."""
    numbers = np.bincount(part.labels[index], minlength=max(1, len(part.classes)))
    parts = [f"{count:,} of {_class(part, k)}" for k, count in enumerate(numbers.tolist()) if count]
    of = f" ({_some(parts)})" if part.classes else ""
    return f"{len(index):,} of {len(part.contents):,} images{of} {'are' if verb else 'have'}"


def _some(parts: Sequence[str]) -> str:
    more = f" and {len(parts) - MOST} more" if len(parts) > MOST else ""
    return ", ".join(parts[:MOST]) + more


def _colour(part: Digests) -> str:
    return "grey" if part.shape[0] == 1 else "RGB"


def _size(part: Digests) -> str:
    return f"{part.shape[2]} x {part.shape[1]}"
