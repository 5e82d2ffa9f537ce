"""The roof: settings, boot, supervisor, command line."""
