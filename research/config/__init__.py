"""From text to a checked config: files, dotted overrides, and the signatures that named groups have to fit."""
