"""The examples in the ground floor's docstrings run and give what they say."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import actors.rules


@pytest.mark.parametrize("name", sorted(module.name for module in pkgutil.iter_modules(actors.rules.__path__)))
def test_the_examples_of_a_module_are_true(name: str) -> None:
    assert doctest.testmod(importlib.import_module(f"actors.rules.{name}")).failed == 0
