"""Cases, findings, charts, recorded labels, importers and the case store."""
