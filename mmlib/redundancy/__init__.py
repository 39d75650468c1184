"""Redundancy: which tasks of the instruction pool can lose most of their records. Import from the module that owns it:

`cuts` (task groups, which records a cut leaves) · `runs` (what is trained and how often it is shown, evidence) ·
`report` (tables of the report) · `figures` (its pictures).
"""
