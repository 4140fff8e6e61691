"""The case store: cases, findings, recorded labels, imports and quarantine in one SQL database.

engine.py       open a database, transactions, foreign errors turned into StorageError
tables.py       the tables
case_reader.py  cases without ground truth (for what runs while a case is open)
truth_store.py  recorded labels, in tables that the reader never touches
case_store.py   both, and writing
"""
