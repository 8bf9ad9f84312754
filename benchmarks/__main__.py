"""`python -m netlib.throwaway -- python -m benchmarks`: what `make bench` runs."""

from benchmarks.one_host import main

main()
