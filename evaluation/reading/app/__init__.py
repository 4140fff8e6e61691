"""The review application: clinicians read case-steps of a run in a browser, blinded until they commit an own answer."""
