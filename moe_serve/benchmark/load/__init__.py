"""The load generator: a closed loop on two servers in turn.

Takes a workload and two endpoints; writes one result file per run.
"""
