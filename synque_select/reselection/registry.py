"""Registry of the policies: built-in ones, registered ones, and those of installed packages."""

from __future__ import annotations

from typing import TypeVar

from synque_select.errors import ConfigError
from synque_select.reselection.base import ReselectionPolicy
from synque_select.utils.registry import Registry, check_options, checked_class, split_options

__all__ = ["POLICIES", "get_policy", "policy_ids", "register_policy"]

Policy = TypeVar("Policy", bound=ReselectionPolicy)

_BUILT_IN = {
    "agreement": "synque_select.reselection.agreement:AgreementPolicy",
    "aioli": "synque_select.reselection.aioli:AioliPolicy",
    "odm": "synque_select.reselection.odm:OdmPolicy",
    "static": "synque_select.reselection.base:StaticPolicy",
    "surrogate": "synque_select.reselection.surrogate:SurrogatePolicy",
}


def _check_class(value: object) -> type[ReselectionPolicy]:
    cls: type[ReselectionPolicy] = checked_class(value, ReselectionPolicy, "policy", ("id",))
    return cls


POLICIES: Registry[type[ReselectionPolicy]] = Registry(
    "policy",
    "synque_select.policies",
    _BUILT_IN,
    check=_check_class,
    keys_of=lambda cls: (cls.id,),
)


def policy_ids() -> tuple[str, ...]:
    """Return the sorted ids of all policies, those of installed packages included."""
    return POLICIES.keys()


def register_policy(cls: type[Policy], *, overwrite: bool = False) -> type[Policy]:
    """Register a policy class under its id; can be used as a class decorator.

    Args:
        cls: A subclass of `ReselectionPolicy` that sets `id`.
        overwrite: Whether to replace a built-in or registered policy that has the same id.

    Returns:
        The class.

    Raises:
        ConfigError: The id belongs to another class, or a required attribute is missing.
    """
    POLICIES.register(POLICIES.check(cls).id, cls, overwrite=overwrite)
    return cls


def get_policy(spec: str | ReselectionPolicy) -> ReselectionPolicy:
    """Return a policy.

    Args:
        spec: A policy, or the id of one, or the dotted name of its class, with options after
            colons: "odm", "odm:alpha=0.5", "my_package.MyPolicy".

    Raises:
        ConfigError: The policy or an option is unknown, or a required option is missing.

    Example:
        >>> get_policy("static").id
        'static'
        >>> get_policy("statik")
        Traceback (most recent call last):
        synque_select.errors.ConfigError: unknown policy 'statik': did you mean 'static'? There
        are: ...
    """
    if isinstance(spec, ReselectionPolicy):
        return spec
    if not isinstance(spec, str):
        raise ConfigError(
            f"policy={spec!r}: allowed is the id of a policy or an instance of ReselectionPolicy"
        )
    name, options = split_options(spec)
    cls = POLICIES.get(name)
    check_options(f"policy {name!r}", cls, options)
    return cls(**options)
