"""The metrics of `common.evaluation` beside closed forms, slow references and the implementations that others maintain.

table.py       what a row is, how it is kept, and when the kept table is stale
metrics.py     what each metric measures, and the function that does
<family>.py    the rows: each works out the same number twice
table.json     what came out, made by `make conformance`

"""
