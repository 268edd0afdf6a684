"""Every metric of the product, and the text in which Prometheus scrapes them.

`catalogue` has names, types, labels and help; `exposition.render` takes the `Samples` of one
catalogue and returns text. Standard library only.
"""
