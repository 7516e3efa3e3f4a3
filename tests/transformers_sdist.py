"""The common tests of transformers, which come with its source distribution and not with its wheel."""

import fnmatch
import importlib
import io
import shutil
import subprocess
import sys
import tarfile
import unittest
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType

import pytest
import torch
import transformers

# Names of skipped tests, or patterns of them, by the reason why they do not apply.
Skips = dict[str, tuple[str, ...]]

# Fields of transformers' own that every configuration takes, with other values than their defaults.
COMMON_FIELDS = {
    "architectures": ["DualRepModel"],
    "dtype": "float16",
    "id2label": {0: "abdomen", 1: "femur", 2: "lips"},
    "output_hidden_states": True,
    "problem_type": "regression",
    "return_dict": False,
}
# Modules that the common tests import and the source distribution leaves out, with the names that they take.
# The mixins among them test text generation and export; the function fetches files for those tests.
LEFT_OUT = {
    "fetch_hub_objects_for_ci": {"url_to_local_path": lambda url: url},
    "tests.exporters": {},
    "tests.exporters.test_export": {"ExportTesterMixin": type("ExportTesterMixin", (), {})},
    "tests.generation": {},
    "tests.generation.test_utils": {"GenerationTesterMixin": type("GenerationTesterMixin", (), {})},
    "tests.utils": {},
    "tests.utils.test_configuration_utils": {"config_common_kwargs": COMMON_FIELDS},
}
MARKERS = (
    "accelerate_tests",
    "flash_attn_test",
    "flash_attn_3_test",
    "flash_attn_4_test",
    "torch_compile_test",
)


@lru_cache(maxsize=1)
def _folder_of_this_run() -> TemporaryDirectory:
    return TemporaryDirectory(prefix="transformers-sdist-")


@lru_cache(maxsize=1)
def transformers_sdist_tests() -> Path:
    """Fetches the source distribution of the installed version; returns the folder that holds its `tests`.

    An environment made by uv has no pip of its own, so uv runs one.

    Raises:
        RuntimeError: there is no uv, or the download fails.
    """
    folder = Path(_folder_of_this_run().name)
    requirement = f"transformers=={transformers.__version__}"
    uv = shutil.which("uv")
    if uv is None:
        raise RuntimeError("uv is not on PATH: it runs the pip that fetches transformers' tests.")
    options = ["--quiet", "--no-deps", "--no-binary", "transformers", "--dest", str(folder)]
    download = subprocess.run(
        [uv, "tool", "run", "pip", "download", *options, requirement], capture_output=True, text=True
    )
    if download.returncode != 0:
        raise RuntimeError(f"pip could not fetch the source of {requirement}:\n{download.stderr}")
    (archive,) = folder.glob("transformers-*.tar.gz")
    with tarfile.open(archive) as sdist:
        tests = [member for member in sdist.getmembers() if "/tests/" in member.name]
        sdist.extractall(folder, tests, filter="data")
    source = folder / archive.name.removesuffix(".tar.gz")
    (source / "tests" / "__init__.py").touch()
    return source


def import_common_tests(
    module: str, monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config
) -> ModuleType:
    """A module of the common tests, such as `test_modeling_common`."""
    for marker in MARKERS:
        pytestconfig.addinivalue_line("markers", f"{marker}: of transformers' own tests")
    for name, contents in LEFT_OUT.items():
        stand_in = ModuleType(name)
        vars(stand_in).update(contents)
        monkeypatch.setitem(sys.modules, name, stand_in)
    monkeypatch.syspath_prepend(str(transformers_sdist_tests()))
    return importlib.import_module(f"tests.{module}")


def run_common_tests(case: type[unittest.TestCase], skips: Skips, at_least: int) -> None:
    """Runs a test case made of common tests.

    Raises:
        AssertionError: a test fails, is skipped without being listed, or is listed without being skipped, or
            fewer than `at_least` were run.
    """
    tests = unittest.defaultTestLoader.loadTestsFromTestCase(case)
    result = unittest.TextTestRunner(stream=io.StringIO()).run(tests)
    failed = [f"{test.id()}\n{traceback}" for test, traceback in result.failures + result.errors]
    assert not failed, "\n".join(failed)
    skipped = {test.id().split(" ")[0].rpartition(".")[2]: reason for test, reason in result.skipped}
    patterns = [pattern for names in skips.values() for pattern in names]
    unlisted = {
        name: reason
        for name, reason in skipped.items()
        if not any(fnmatch.fnmatch(name, pattern) for pattern in patterns)
    }
    assert not unlisted, f"skipped without a reason in the table: {unlisted}"
    if not torch.accelerator.is_available():  # where there is one, more tests run
        unused = [pattern for pattern in patterns if not fnmatch.filter(skipped, pattern)]
        assert not unused, f"listed, but not skipped: {unused}"
    assert result.testsRun - len(skipped) >= at_least
