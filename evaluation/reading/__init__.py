"""Clinicians read what a run concluded: the form, its store, agreement between readers, and what it teaches."""
