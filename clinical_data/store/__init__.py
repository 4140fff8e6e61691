"""The case store: cases, findings, recorded labels, imports and quarantine in one SQL database.

engine.py          open a database, transactions, foreign errors turned into StorageError
tables.py          the tables
case_reader.py     cases without ground truth (for what runs while a case is open)
truth_store.py     recorded labels, in tables that the reader never touches
case_store.py      both, and writing
case_rows.py       a case as rows, checked before a transaction begins
case_writer.py     a batch of cases within a transaction; texts.py and bulk.py serve it
import_store.py    imports, their progress and what they could not use
import_ledger.py   which counts belong to which case
import_session.py  an import while it runs
"""
