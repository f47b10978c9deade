"""Ghost modules (Han et al., CVPR 2020): half of the channels are cheap maps of the others."""

import torch
from torch import nn


class Ghost(nn.Module):
    """A 1x1 convolution to half of the channels, and a depthwise one of its output."""

    def __init__(self, inputs, outputs, stride, style):
        super().__init__()
        half = outputs // 2
        self.main = nn.Sequential(
            nn.Conv2d(inputs, half, 1, stride, bias=False), style.norm(half), style.act()
        )
        self.cheap = nn.Sequential(
            nn.Conv2d(half, half, 3, 1, 1, groups=half, bias=False), style.norm(half)
        )

    def forward(self, x):
        """Map x (B, C, H, W)."""
        x = self.main(x)
        return torch.cat([x, self.cheap(x)], 1)


def ghost(inputs, outputs, stride, style):
    """Build a ghost module."""
    return Ghost(inputs, outputs, stride, style)


def flat(inputs, outputs, stride, style):
    """Build what does not keep to its stride."""
    return nn.Conv2d(inputs, outputs, 1)
