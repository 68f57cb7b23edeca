"""Give mmcv its operators before a test module imports mmcv."""

import src.mmdet_bridge.kernels  # noqa: F401
