"""What netlib costs, beside what others cost on the same machine in the same minutes.

`make bench` runs all, `make bench ARGS="attach"` one chapter. Compare figures of one run only:
samples of what is compared alternate, so that both meet the machine in the same moods.
"""
