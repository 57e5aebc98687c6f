# A thin face over CMake presets; `make help` lists the targets.
.DEFAULT_GOAL := help
JOBS ?= $(shell nproc)
BIN := build/release/bin
MODEL ?= models/tiny

.PHONY: help setup build up demo test check asan tsan fuzz bench clean

help:      ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' Makefile

setup:     ## install what is missing (Debian packages; root or sudo)
	@tools/setup.sh

build: setup  ## the release build, in build/release/bin
	@cmake --preset release >/dev/null && cmake --build --preset release -j $(JOBS)

up: build  ## build and serve the embedded model on 127.0.0.1:8000
	@$(BIN)/baton up --model $(MODEL)

demo: build  ## start a cluster, stream one completion with its TTFT and ITL, stop
	@tools/demo.sh $(BIN) $(MODEL)

test: build  ## all tests
	@ctest --test-dir build/release --output-on-failure -j $(JOBS)

check: setup  ## format, lint, tidy, warnings as errors
	@tools/check.sh

asan: setup  ## all tests under ASan and UBSan
	@cmake --preset dev >/dev/null && cmake --build --preset dev -j $(JOBS)
	@ctest --test-dir build/dev --output-on-failure -j $(JOBS)

tsan: setup  ## the threaded tests under ThreadSanitizer
	@cmake --preset tsan >/dev/null && cmake --build --preset tsan -j $(JOBS)
	@ctest --test-dir build/tsan --output-on-failure -j $(JOBS)

fuzz: setup  ## every fuzz target, FUZZ_SECONDS each (default 60)
	@tools/fuzz.sh

bench: build  ## the benchmark table
	@tools/bench.sh $(BIN) $(MODEL)

clean:     ## remove build/
	@rm -rf build
