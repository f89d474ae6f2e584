"""Labels for whole pieces: composer, style, or any names of one's own. Many tokens in, one label out (many-to-one)."""
