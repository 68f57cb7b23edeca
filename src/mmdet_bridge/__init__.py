"""The only importer of mmdet, mmcv and mmengine; importing it makes their operators work."""

from src.mmdet_bridge.kernels import install_kernels

install_kernels()
