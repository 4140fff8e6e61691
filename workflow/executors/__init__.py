"""Where the cases of a run are worked on."""
