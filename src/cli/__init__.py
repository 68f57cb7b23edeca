"""Parts that the commands share: entry point, arguments, checks, resuming, locks."""
