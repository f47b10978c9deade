"""The static step: a step whose operations are always the same runs as one program."""
