# Every target is one line over a script or the go command, which work without make.

.PHONY: help build run run-rabbitmq test lint fmt fuzz faults mutants bench cover rules browser parquet vuln clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build bin/async-data-processor
	scripts/build

run: build ## build and run it all in one process, over the embedded broker
	bin/async-data-processor standalone

run-rabbitmq: ## run server and message-consumer over a private RabbitMQ
	scripts/run-rabbitmq

test: ## everything CI runs: lint, fuzz smoke, all tests with the race detector
	scripts/test

lint: ## the static checks alone
	scripts/lint

fmt: ## fix what lint can: go fix, gofumpt
	go fix ./...
	go -C cmd/adp-parquet fix ./...
	go tool -modfile=tools.mod gofumpt -w .

fuzz: ## search with every fuzz target, FUZZTIME (1m) each
	FUZZTIME=$(or $(FUZZTIME),1m) scripts/fuzz

faults: ## hurt the program for an hour or more, and count what got lost
	scripts/faults

mutants: ## seed bugs, each of which has to turn a test red
	scripts/mutants

cover: ## show what the last COVER=true make test covered, per package and in total
	scripts/cover

bench: ## measure everything beside what limits it; ONLY=ingest-100,files for some, QUICK=1 to see that it works
	scripts/bench $(if $(ONLY),-only $(ONLY)) $(if $(QUICK),-quick)

rules: ## test the alerts with the engine of Prometheus (builds 700 packages)
	cd deploy/rules && go test ./...

browser: ## try what pages may do in a real browser
	scripts/browser

parquet: ## build bin/adp-parquet, and test it with a server of S3 and with DuckDB
	scripts/parquet build
	scripts/parquet

vuln: ## look for known vulnerabilities (needs the internet)
	go tool -modfile=tools.mod govulncheck ./...

clean: ## remove what the targets made, but neither data/ nor a running RabbitMQ
	rm -rf bin coverage.out
