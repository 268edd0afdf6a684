"""The record: a file per rank in which a worker leaves totals and proof, and its readers.

The plugin writes slots of totals and a typed `Proof`; exporter, preflight and demo get them back as
a `Record`. Standard library only, because the writer runs inside vLLM.
"""
