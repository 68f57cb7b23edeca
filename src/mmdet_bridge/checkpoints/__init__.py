"""Reading, importing and averaging checkpoints; reading one imports torch only."""
