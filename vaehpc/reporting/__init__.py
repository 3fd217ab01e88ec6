"""Results in, figures and one self-contained HTML page out."""
