"""What commands share beside their configuration: signals, locks, arguments."""
