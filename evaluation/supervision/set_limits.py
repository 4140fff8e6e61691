"""What a training set leaves out unless told otherwise; here, so that the command line shows it and loads nothing."""

from __future__ import annotations

MOST_CHARACTERS = 12_000
"""Of a row: about 3,000 tokens of English."""
LEAST_MARGIN = 0.01
"""Of a pair of branches: a smaller difference of two shares is chance."""
LEAST_VISITS = 2
"""Rollouts that each branch of a pair must have."""
