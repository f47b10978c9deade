"""Arguments that several commands have."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

from tutelage.config import Device

Target = Annotated[str, Parameter(help="A run directory, or a genotype: name, text or file.")]
Clock = Literal["wall", "cpu"]
Where = Annotated[Device, Parameter(help="Device; auto: CUDA if any.")]
AsJson = Annotated[bool, Parameter(name="--json", negative=(), help="Print JSON instead.")]
