"""Types of params.yaml: a module per study, in it a class per stage, every knob with its type.

Plumbing, as `config` is, which reads and checks the file against them: nothing here may change a number.
"""
