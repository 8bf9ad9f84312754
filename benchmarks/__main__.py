"""`python -m benchmarks`, which `make bench` runs."""

from benchmarks.one_host import main

main()
