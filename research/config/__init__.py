"""From text to a checked config: config files, dotted overrides, and checks against signatures."""
