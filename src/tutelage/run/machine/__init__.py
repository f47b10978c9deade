"""The machine that a run computes on: device, arithmetic, determinism, threads."""
