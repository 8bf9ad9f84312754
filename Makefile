# `make test` and `make demo` set up all they need; `make` alone lists the targets.

BIN := .venv/bin
PYTEST := $(BIN)/pytest

.PHONY: help dev check test test-matrix demo labs bench bench-dns bench-cni bench-scale bench-overlay docs lock clean
.DEFAULT_GOAL := help

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' Makefile | expand -t 20

dev: ## set up .venv with the locked tools and netlib itself
	@tools/setup packages
	@tools/setup venv

check: dev ## lint, types, layers and the quick tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(PYTEST) -q -m "not kernel and not slow and not matrix"

test: dev ## all tests but the long matrix, as root or not
	$(PYTEST) -m "not matrix" -n 3 --dist worksteal $(ARGS)

test-matrix: dev ## the long firewall matrix
	$(PYTEST) -m matrix --timeout 600 $(ARGS)

demo: dev ## the main job on real packets, as a story
	@$(BIN)/net lab run demo $(ARGS)

labs: dev ## all stories about container networks, one after the other
	@for lab in $$($(BIN)/net lab ls -q); do $(BIN)/net lab run $$lab $(ARGS) || exit 1; echo; done

bench: dev ## measure, beside others where they are installed
	@$(BIN)/python -m benchmarks $(ARGS)

bench-dns: dev ## names, beside dnsmasq and aardvark-dns where they are installed
	@$(BIN)/python -m benchmarks names $(ARGS)

bench-overlay: dev ## what an overlay carries, beside a VXLAN by hand; how soon hosts know of each other's
	@$(BIN)/python -m benchmarks overlay-carried overlay-entries overlay-told overlay-crowd $(ARGS)

bench-cni: dev ## measure CNI calls beside the reference plugins
	@$(BIN)/python -m benchmarks.cni_calls

bench-scale: dev ## what endpoints, watchers and hosts cost etcd and the kernel (docs/scale.md)
	@$(BIN)/python -m benchmarks.scale $(ARGS)

docs: dev ## rewrite the pages that are made of the code
	$(BIN)/python tools/docs.py

lock: ## take the newest versions of all tools
	tools/setup lock

clean: ## remove what can be made again
	rm -rf .venv build dist ./*.egg-info .*_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
