"""A run folder in, figures and one self-contained HTML page out. Reads files only."""
