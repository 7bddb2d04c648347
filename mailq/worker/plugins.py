"""The operator's own code: found by name, checked once, when a worker starts."""

import importlib
from typing import Any

from mailq.delivery.hooks import NO_HOOKS, Hooks
from mailq.errors import ConfigError


def load_hooks(name: str) -> Hooks:
    """Return the hooks called *name*, ``module:attribute``; none for an empty name.

    Raises:
        ConfigError: There is no such module or attribute, or it is no :class:`mailq.delivery.hooks.Hooks`.
    """
    if not name:
        return NO_HOOKS
    found = named("hooks", name)
    if not isinstance(found, Hooks):
        raise ConfigError(f"hooks {name!r} is a {type(found).__name__}; it must be a mailq.delivery.hooks.Hooks")
    return found


def named(setting: str, name: str) -> Any:
    """Return what *setting* calls *name*, ``module:attribute``.

    Raises:
        ConfigError: There is no such module or attribute.
    """
    module, separator, attribute = name.partition(":")
    if not (module and separator and attribute):
        raise ConfigError(f"{setting} {name!r} is not of the form module:attribute")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"{setting} {name!r} cannot be loaded: {error}; the module must be importable by the worker"
        ) from error
