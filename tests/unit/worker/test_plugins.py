"""The operator's own code is found by its name, or the worker says why not."""

import pytest

from mailq.delivery.hooks import NO_HOOKS, Hooks
from mailq.errors import ConfigError
from mailq.worker.plugins import load_hooks

HOOKS = Hooks(sender_rewrite=str.lower)


def test_no_name_is_no_hooks():
    assert NO_HOOKS == load_hooks("")


def test_hooks_are_found_by_module_and_attribute(monkeypatch, tmp_path):
    (tmp_path / "operators_hooks.py").write_text(
        "from mailq.delivery.hooks import Hooks\nHOOKS = Hooks(sender_rewrite=str.lower)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert HOOKS == load_hooks("operators_hooks:HOOKS")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no_colon", "module:attribute"),
        (":attribute", "module:attribute"),
        ("no_such_module_anywhere:HOOKS", "cannot be loaded"),
        ("mailq.errors:HOOKS", "cannot be loaded"),
        ("mailq.errors:MailqError", "must be a mailq.delivery.hooks.Hooks"),
    ],
)
def test_what_cannot_be_used_is_a_configuration_error_that_names_it(name, words):
    with pytest.raises(ConfigError, match=words) as error:
        load_hooks(name)
    assert name in str(error.value)
