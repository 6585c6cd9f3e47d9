"""Many runs: what makes up a table of the paper, and how its runs are trained on one machine or many."""
