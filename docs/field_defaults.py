"""Shows, on the page of the Python API, a field's default in place of the function that makes the field."""

from __future__ import annotations

from typing import Any

import griffe

_MAKERS = ("count", "number", "choice")  # of ecrl.config.limits; the default is their first argument


class FieldDefaults(griffe.Extension):
    """Puts the default where a class says ``seed: int = count(0, least=0)``."""

    def on_attribute_instance(self, *, attr: griffe.Attribute, **kwargs: Any) -> None:
        """Replace the value of an attribute."""
        value = attr.value
        if not isinstance(value, griffe.ExprCall):
            return
        maker = str(value.function)
        named = {x.name: x.value for x in value.arguments if isinstance(x, griffe.ExprKeyword)}
        if maker in _MAKERS and value.arguments:
            attr.value = value.arguments[0]
        elif maker == "field" and "default_factory" in named:
            attr.value = griffe.ExprCall(function=named["default_factory"], arguments=[])
        elif maker == "field" and "default" in named:
            attr.value = named["default"]
