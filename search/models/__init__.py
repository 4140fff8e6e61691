"""Language models behind one protocol. `import search` loads no torch."""
