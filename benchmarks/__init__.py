"""Each figure of the README, this project and its peer side by side, in one run."""

import src.mmdet_bridge.kernels  # noqa: F401  # before mmdet and mmcv, which look for their operators once
