"""An operation of one's own in two functions: involution (Li et al., CVPR 2021, arXiv:2103.06255).

At every pixel a 3 x 3 kernel, computed from that pixel, weighs its neighbours, in all channels.
"""

import torch.nn.functional as F
from torch import nn

KERNEL = 3


class Involution(nn.Module):
    """ReLU, 1x1 convolution, involution, normalisation."""

    def __init__(self, inputs, outputs, stride, style):
        super().__init__()
        inner = max(1, outputs // 4)
        self.stride = stride
        self.project = nn.Sequential(nn.ReLU(), nn.Conv2d(inputs, outputs, 1), style.norm(outputs))
        self.pool = nn.AvgPool2d(stride, stride, ceil_mode=True)
        self.kernels = nn.Sequential(
            nn.Conv2d(outputs, inner, 1), nn.ReLU(), nn.Conv2d(inner, KERNEL**2, 1)
        )
        self.norm = style.norm(outputs)

    def forward(self, x):
        """Map (B, inputs, H, W) to (B, outputs, H / stride, W / stride), rounded up."""
        x = self.project(x)
        kernels = self.kernels(self.pool(x))
        patches = F.unfold(x, KERNEL, padding=KERNEL // 2, stride=self.stride)
        patches = patches.unflatten(1, (x.shape[1], KERNEL**2)).unflatten(3, kernels.shape[2:])
        return self.norm((patches * kernels.unsqueeze(1)).sum(2))


def involution(inputs, outputs, stride, style):
    """Build the operation's module."""
    return Involution(inputs, outputs, stride, style)


def involution_flops(inputs, outputs, stride, height, width):
    """Return the FLOPs for one image; those of the weighing are in no convolution."""
    inner = max(1, outputs // 4)
    pixels = -(-height // stride) * -(-width // stride)
    of_kernels = pixels * (outputs * inner + inner * KERNEL**2)
    return height * width * inputs * outputs + of_kernels + pixels * outputs * KERNEL**2
