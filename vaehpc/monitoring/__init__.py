"""What the runs of a study are doing, how they ended, what they used and what came out."""
