# SPDX-License-Identifier: Apache-2.0
.DEFAULT_GOAL := help
.PHONY: help run test build release fmt lint fuzz bench soak clean

help: ## print this list
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

run: ## run a cell in the foreground; DATA=folder, STORE=folder or s3://…
	@DATA="$(DATA)" STORE="$(STORE)" deploy/run.sh

test: ## run all tests, with a real Postgres and a real S3 server; ARGS="--filter …"
	@deploy/test.sh $(ARGS)

build: ## build everything for debugging
	@deploy/install-packages.sh
	swift build

release: ## build the programs with optimisation
	@deploy/install-packages.sh
	swift build -c release

fmt: ## format the sources
	swift format format --in-place --recursive --parallel Package.swift Sources Tests Benchmarks/Sources

lint: ## check the sources' format
	swift format lint --strict --recursive --parallel Package.swift Sources Tests Benchmarks/Sources

fuzz: ## feed damaged bytes to every decoder, for some minutes
	@deploy/install-packages.sh
	MILLRACE_FUZZ_ITERATIONS=300000 swift test --filter fuzz

bench: ## measure a release cell against this machine's limits
	@Benchmarks/run.sh

soak: ## load a cell for 15 minutes; memory must stay flat
	@Benchmarks/soak.sh

clean: ## remove what was built; data stays
	rm -rf .build .build-*
