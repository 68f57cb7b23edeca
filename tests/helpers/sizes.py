"""Overrides that make a cascade small; nothing is imported for them."""

from __future__ import annotations

SMALL = (  # of htc_tiny, for tests: fewer classes, channels, proposals
    "module.num_classes=5",
    "+module.detector.backbone.base_channels=16",
    "module.detector.backbone.norm_cfg.num_groups=4",
    "module.detector.neck.in_channels=[16,32,64,128]",
    "module.detector.sizes.channels=16",
    "module.detector.sizes.box_features=32",
    "module.detector.sizes.training_rois=32",
    "module.detector.sizes.proposals_training=100",
    "module.detector.sizes.proposals_inference=60",
)
