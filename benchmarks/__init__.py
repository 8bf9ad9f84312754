"""What netlib costs, beside what others cost on the same machine in the same minutes.

`make bench` asks all questions, `make bench ARGS="connect --runs 30 --json FILE"` one of them.
Measurements, never tests: a slow machine is no fault.
"""
