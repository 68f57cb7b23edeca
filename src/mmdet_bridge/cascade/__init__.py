"""Cascades of mmdetection: building, feeding, loading and running them.

Importing it supplies mmcv's operators, which mmdet looks for once, when it is first imported.
"""

from src.mmdet_bridge import kernels  # noqa: F401
