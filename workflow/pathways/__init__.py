"""Bundled pathways: one YAML file each, read by `workflow.pathway.load_pathway`."""
