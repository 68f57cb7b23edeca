"""LightningModules: one cascade, ensembles of them, and learning rate schedules."""
