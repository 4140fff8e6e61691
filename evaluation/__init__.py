"""Run records, scores, metrics, training sets, reports and review."""
