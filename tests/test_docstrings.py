"""Every example in a docstring of the library is run, and every package opens with one."""

import doctest
import pkgutil
from importlib import import_module
from types import ModuleType

import pytest

import signal_drift

NAMES = ["signal_drift", *(m.name for m in pkgutil.walk_packages(signal_drift.__path__, "signal_drift."))]
MODULES = {name: import_module(name) for name in NAMES if not name.endswith("__main__")}


def examples(module: ModuleType) -> list[doctest.DocTest]:
    found = doctest.DocTestFinder(exclude_empty=True).find(module, module.__name__)
    return [test for test in found if test.examples]


@pytest.mark.parametrize("name", [name for name, module in MODULES.items() if examples(module)])
def test_examples_print_what_they_say(name):
    for test in examples(MODULES[name]):
        output: list[str] = []
        doctest.DocTestRunner().run(test, out=output.append)
        assert not output, "".join(output)


@pytest.mark.parametrize("name", [name for name, module in MODULES.items() if hasattr(module, "__path__")])
def test_every_package_opens_with_an_example(name):
    assert any(test.name == name for test in examples(MODULES[name]))
