"""Redundancy: which tasks of the instruction pool can lose most of their records. Import from the module that owns it:

`cuts` (task groups, which records a cut leaves, how often a run sees them) · `runs` (what is trained, evidence) ·
`report` (tables of the report) · `figures` (its pictures).
"""
