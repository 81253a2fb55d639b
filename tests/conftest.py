"""For all tests."""

import os
import re
import signal
from pathlib import Path

LONG = re.compile(
    "|".join(
        (
            # All recurrent cells in one bundle.
            r"compile/test_float_recurrent.py::test_states_are_those_of_onnx_runtime\[native-1",
            # Every way in which a command may be broken off, and random inputs.
            r"faults/",
            r"fuzz/",
            r"tuning/test_killed",
            r"tuning/test_runner.py::test_what_crashes",
            r"latency/test_cell_batches.py::test_a_kill",
            r"latency/test_pool_workbench.py::test_an_interrupted",
            r"latency/test_two_processes",
            r"remote/test_served.py::test_(a_device_killed|an_interrupt|a_slow_device)",
            r"latency/test_table.py::test_a_killed",
            r"remote/test_(lost|rude|serve\.py)",
            r"search/test_damaged_run",
            r"search/test_sweep.py::test_killed",
            r"search/test_any_module",
            r"search/test_onnx_file.py::test_(a_float_file|a_configuration|files_of_torch)",
            r"search/test_study_of_methods",
            r"search/test_on_target.py::test_(however|it_lands.*(between|w2a2))",
            r"search/test_methods.py::test_(the_next|it_keeps.*halving|interrupted.*(bsq|supernet|greedy|halving)|the_trace)",
            r"search/test_trace.py::.*(resnet|preactivation|mobilenet-v2|googlenet|shufflenet|audio|deit)",
            r"search/test_module_task.py::test_(every|loss|outputs|a_teacher|the_module|an_interrupted|a_function)",
            # Kernels for CUDA devices, emulated.
            r"cuda/test_kernels.py::test_(a_network.*(residual|separable|int8)|a_bundle|residual)",
            # Whole networks, whole searches, whole commands of the documents.
            r"compile/test_exported_networks",
            r"compile/test_(dispatch|moved)",
            r"passes/test_between_floats.py::test_every_form_is_compiled",
            r"compile/test_concats.py::test_a_bundle",
            r"kernels/test_functions_and_interpolation.py::.*(mish|gelu_tanh|softsign|softplus|silu|x86-64-v2)",
            r"compile/test_float_contractions.py::test_it_is.*(tiles|few|one row|turned|strides|groups|a sequence|x86)",
            r"cuda/test_faults.py::test_(every|no_driver|code_that)",
            r"cuda/test_c_export.py::test_its_errors",
            r"cuda/test_whole",
            r"compile/test_real_exporters.py::test_its_bundle",
            r"compile/test_whole_networks.py::test_the_bundle_equals_the_reference",
            r"compile/test_models.py::test_the_same_class",
            r"compile/test_c_export.py::test_(two_models|the_library)",
            r"compile/test_random_graphs.py::.*(-12-x86-64|-18-|-True)",
            r"examples/test_compile_your_own.py::test_(brevitas|float|onnx_file.)",
            r"examples/test_demo.py::test_the_whole",
            r"examples/test_demo_seeds.py::test_two",
            r"examples/test_detector.py::test_the_whole",
            r"examples/test_site",
            r"ptq/test_(digits|networks|bundle|rounding)",
            r"examples/test_tutorials.py::.*(search|first-bundle)",
            r"families/test_a_new_family.py::test_it_is_tuned",
            r"latency/test_prediction.py::test_rows",
            r"latency/test_pool_workbench.py::test_(a_table_of_real_layers|a_network_is|the_command)",
            r"remote/test_served.py::test_a_(search|table)",
            r"tuning/test_tune.py::test_(?!tuned_for_real)",
            # ONNX's own tests.
            r"compile/test_onnx_backend",
            r"frontend/test_onnx_backend",
            # Every bit pair on the oldest level, every variant, every order of imports, every file.
            r"kernels/test_(contract|layers|winograd).py::.*x86-64-v2",
            r"kernels/test_contract.py::test_bit_pair.[5-8]",
            r"kernels/test_winograd.py::.*bytes.((3, 3)|(2, 4)|(4, 2)|(2, 2)|.*grids|.*Tile|.*planes)",
            r"kernels/test_definitions",
            r"passes/test_random_graphs.py::.*[02468]-",
            r"kernels/test_lookup.py::test_bit_pair.[245678]",
            r"compile/test_float_ops.py::test_nothing_else",
            r"runtime/test_bundle_file.py::test_runtime_alone.*1",
            r"latency/test_fingerprint.py::test_every_file_of_the_set",
            r"runtime/test_tvm_runtime.py::test_whatever_is_loaded",
            r"tuning/test_space.py::test_random_points",
            r"relax/test_networks.py::.*\[(?!brevitas_residual_w3a4)",
            r"relax/test_pass.py::test_(batches|several|channels_last)",
            r"relax/test_deployment.py",
            r"relax/test_pytorch.py::test_(brevitas|what_pt2e_leaves.*127)",
            r"relay/test_commands.py::test_a_module_in_json_is_tuned",
            r"relay/test_networks.py::.*\[(?!brevitas_residual_w3a4|ort_qdq_uint8)",
        )
    )
)
"""What `make test` leaves to `make test-long`, by the beginning of a test's name below `tests/`."""

# Where the tests run in the background of a shell, SIGINT arrives ignored, and so it would in the processes that they
# interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Help is wrapped, and tables are coloured, as in a pipe, whatever terminal or service the tests are started from.
os.environ["COLUMNS"] = "80"
for name in ("FORCE_COLOR", "MPCOMPILE_TRACKER"):
    os.environ.pop(name, None)


def pytest_configure(config):
    config.addinivalue_line("markers", "long: part of make test-long")


def pytest_collection_modifyitems(items):
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            name = item.path.relative_to(here).as_posix() + item.nodeid.partition(".py")[2]
            if LONG.match(name):
                item.add_marker("long")
