"""Many runs: the tables of the paper as sweeps, trained on one machine or many.

Import the modules by name: `job` and `owner` run on every machine of a cluster and must stay light.
"""
