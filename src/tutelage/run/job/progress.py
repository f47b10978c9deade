"""Progress with time left: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

SECONDS_BETWEEN_LINES = 10.0


def duration(seconds: float) -> str:
    """Write a time in its two largest units.

    >>> duration(9.4), duration(75), duration(7260), duration(200_000)
    ('9 s', '1 min 15 s', '2 h 1 min', '2 d 7 h')
    """
    whole = round(seconds)
    for unit, length, smaller, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60)):
        if whole >= length:
            return f"{whole // length} {unit} {whole % length // part} {smaller}"
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{whole} s"


class Progress:
    """Shows the progress of a run; as a context, it restores the terminal."""

    def __init__(
        self,
        total_steps: int,
        done_steps: int,
        title: str,
        *,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start at `done_steps` (more than 0 in a resumed run); only later steps set the pace."""
        self.total, self.first, self.title = total_steps, done_steps, title
        self.console = console or Console(soft_wrap=True, highlight=False)
        self._clock = clock
        self._began = clock()
        self._printed = -SECONDS_BETWEEN_LINES + self._began
        self._done = done_steps
        self._fields: Mapping[str, str] = {}
        self._live: Live | None = None

    def __enter__(self) -> Progress:
        if self.console.is_terminal:
            self._live = Live(
                get_renderable=self._table, console=self.console, refresh_per_second=4
            )
            self._live.start()
        else:
            self.console.print(self.title)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live is not None:
            self._live.stop()
        elif self._fields:
            self.console.print(self._line())

    def step(self, done: int, fields: Mapping[str, str]) -> None:
        """Show that `done` steps are done, with values by name (epoch, losses, genotype)."""
        self._done, self._fields = done, fields
        now = self._clock()
        if self._live is None and now - self._printed >= SECONDS_BETWEEN_LINES:
            self._printed = now
            self.console.print(self._line())
            self._fields = {}

    def note(self, text: str) -> None:
        """Print a line that stays, above the live table: the end of an epoch, a warning."""
        self.console.print(Text(text))

    def left(self) -> str:
        """Return the time left, at the pace of this process so far."""
        steps = self._done - self.first
        if steps == 0:
            return "time left unknown"
        seconds = (self._clock() - self._began) / steps * (self.total - self._done)
        return f"{duration(seconds)} left"

    def _line(self) -> Text:
        values = "".join(f" | {name} {value}" for name, value in self._fields.items())
        return Text(f"step {self._done}/{self.total} | {self.left()}{values}")

    def _table(self) -> Group:
        share = 100 * self._done / max(self.total, 1)
        head = Table.grid(padding=(0, 1))
        head.add_row(
            Text(self.title, style="bold"),
            ProgressBar(total=self.total, completed=self._done, width=24),
            f"{share:.1f} %",
            self.left(),
        )
        values = Table.grid(padding=(0, 2))
        for name, value in self._fields.items():
            values.add_row(Text(name, style="dim"), Text(value))
        return Group(head, values)
