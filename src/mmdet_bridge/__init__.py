"""The only importer of mmdet, mmcv and mmengine."""
