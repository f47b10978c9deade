"""One thread: tests are many tiny operations, which threads only slow down."""

import torch

torch.set_num_threads(1)
