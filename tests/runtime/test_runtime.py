"""Instruction sets, threads and life without torch; each in a process of its own where the environment matters."""

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch

from sparsekit import CSR, KernelUnavailableError, runtime


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code in a new process."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def output(code: str, **environment: str) -> str:
    result = python(code, **environment)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_the_best_instruction_set_is_chosen():
    unset = {"SPARSEKIT_ISA": ""}
    assert (
        output("from sparsekit import runtime; print(runtime.current_isa())", **unset) == runtime.available_isas()[-1]
    )


@pytest.mark.parametrize("name", runtime.available_isas())
def test_the_environment_forces_an_instruction_set(name):
    assert output("from sparsekit import runtime; print(runtime.current_isa())", SPARSEKIT_ISA=name) == name


def test_an_instruction_set_that_cannot_run_is_refused_in_words():
    before = runtime.current_isa()
    with pytest.raises(KernelUnavailableError, match="'avx1024' cannot run here; this machine has scalar"):
        runtime.use_isa("avx1024")
    assert runtime.current_isa() == before
    result = python("from sparsekit import runtime; runtime.current_isa()", SPARSEKIT_ISA="quantum")
    assert "KernelUnavailableError: instruction set 'quantum' cannot run here" in result.stderr


def test_import_needs_no_torch_and_numpy_users_never_load_it():
    code = """
        import sys, numpy as np
        import sparsekit
        weight = sparsekit.CSR.from_dense(np.eye(4, dtype=np.float32))
        assert (weight.matmul(np.ones(4, np.float32)) == 1).all()
        from sparsekit import runtime
        runtime.num_threads()
        assert 'torch' not in sys.modules and 'scipy' not in sys.modules
        import sparsekit.nn
        assert 'torch' in sys.modules
    """
    output(code)


def test_torch_threads_rule_when_torch_is_loaded():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert runtime.num_threads() == 3
    finally:
        torch.set_num_threads(before)
    with pytest.raises(RuntimeError, match=r"call torch.set_num_threads\(2\)"):
        runtime.set_num_threads(2)
    assert (
        output("import torch; torch.set_num_threads(5); from sparsekit import runtime; print(runtime.num_threads())")
        == "5"
    )


def test_threads_are_limited_for_a_while():
    before = torch.get_num_threads()
    with runtime.limited_threads(before + 1):
        assert runtime.num_threads() == torch.get_num_threads() == before + 1
    with runtime.limited_threads(None):
        assert runtime.num_threads() == before
    assert runtime.num_threads() == before
    assert runtime.uses_torch_threads()
    code = """
        from sparsekit import runtime
        before = runtime.num_threads()
        try:
            with runtime.limited_threads(before + 1):
                print(runtime.num_threads() - before, runtime.uses_torch_threads())
                raise KeyError
        except KeyError:
            print(runtime.num_threads() - before)
    """
    assert output(code).split() == ["1", "False", "0"]


def test_the_pool_without_torch():
    code = """
        import os
        from sparsekit import runtime
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        assert runtime.num_threads() == 1, runtime.num_threads()
        runtime.set_num_threads(3)
        assert runtime.num_threads() == 3
        try:
            runtime.set_num_threads(0)
        except ValueError as error:
            print(error)
    """
    assert output(code, SPARSEKIT_NUM_THREADS="") == "the number of threads must be at least 1, got 0"
    assert output("from sparsekit import runtime; print(runtime.num_threads())", SPARSEKIT_NUM_THREADS="7") == "7"


def test_no_more_threads_than_the_machine_has_use_for():
    code = """
        import os, numpy as np
        from sparsekit import CSR, runtime
        most = max(64, os.cpu_count())
        assert runtime.num_threads() == most, runtime.num_threads()
        packed = CSR.from_dense(np.ones((500, 500), np.float32)).pack()
        runtime.linear(np.ones((64, 500), np.float32), packed)
        assert len(os.listdir('/proc/self/task')) <= 2 * most
        for count in (most + 1, 100_000):
            try:
                runtime.set_num_threads(count)
            except ValueError as error:
                assert str(error) == f'the number of threads must be at most {most} on this machine, got {count}'
            else:
                raise AssertionError(count)
    """
    for wanted in ("100000", "9" * 30):
        output(code, SPARSEKIT_NUM_THREADS=wanted, OPENBLAS_NUM_THREADS="1")


def test_the_pool_gives_the_same_results_and_survives_a_fork():
    code = """
        import os, numpy as np
        from sparsekit import CSR, runtime
        rng = np.random.default_rng(0)
        weight = rng.standard_normal((600, 500), dtype=np.float32)
        weight[rng.random(weight.shape) < 0.5] = 0
        packed = CSR.from_dense(weight).pack()
        x = rng.standard_normal((100, 500), dtype=np.float32)
        runtime.set_num_threads(1)
        alone = runtime.linear(x, packed)
        for threads in (2, 4):
            runtime.set_num_threads(threads)
            assert (runtime.linear(x, packed) == alone).all()
        child = os.fork()
        if child == 0:
            os._exit(0 if (runtime.linear(x, packed) == alone).all() else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    """
    output(code)


def test_linear_refuses_wrong_input():
    packed = CSR.from_dense(np.ones((3, 4), np.float32)).pack()
    x = np.zeros((2, 4), np.float32)
    with pytest.raises(TypeError, match="x must be a float32 array, got float64"):
        runtime.linear(x.astype(np.float64), packed)
    with pytest.raises(ValueError, match="in_features = 4 as its last dimension, got shape"):
        runtime.linear(x[:, :3], packed)
    with pytest.raises(ValueError, match=r"bias must have shape \[out_features\] = \[3\]"):
        runtime.linear(x, packed, np.zeros((2, 3), np.float32))
    with pytest.raises(TypeError, match="bias must be a float32 array, got float64"):
        runtime.linear(x, packed, np.zeros(3))
    with pytest.raises(TypeError, match="x must be a float32 array, got list"):
        runtime.linear([[1.0]], packed)
    with pytest.raises(ValueError, match="activation must be None or one of none, relu"):
        runtime.linear(x, packed, activation="tanh")
    with pytest.raises(ValueError, match="not a packed weight"):
        runtime.linear(x, np.zeros(256, np.uint8))
    shifted = np.empty(packed.size + 1, np.uint8)[1:]
    shifted[:] = packed
    with pytest.raises(ValueError, match="multiple of 8 bytes"):
        runtime.linear(x, shifted)
    lying = packed.copy()
    lying.view(np.int64)[2] = 1 << 40  # out_features
    with pytest.raises(ValueError, match="contradicts itself"):
        runtime.linear(x, lying)


def test_input_that_is_not_contiguous_and_any_leading_shape():
    packed = CSR.from_dense(np.ones((3, 4), np.float32)).pack()
    x = np.arange(48, dtype=np.float32).reshape(4, 2, 6)[:, :, 1:5]
    np.testing.assert_array_equal(runtime.linear(x, packed), np.repeat(x.sum(-1, keepdims=True), 3, axis=-1))
    assert runtime.linear(np.ones(4, np.float32), packed).shape == (3,)
