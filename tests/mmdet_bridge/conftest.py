"""mmcv's operators are in place before any test module here imports mmcv or mmdet."""

import src.mmdet_bridge  # noqa: F401
