"""Policies that change a mixture while the model trains; `ReselectionCallback` asks them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synque_select.utils.lazy_names import lazy_names

if TYPE_CHECKING:
    from synque_select.reselection.agreement import AgreementPolicy
    from synque_select.reselection.aioli import AioliPolicy
    from synque_select.reselection.base import Proposal, ReselectionPolicy, StaticPolicy
    from synque_select.reselection.context import ModelEvaluation, ReselectionContext
    from synque_select.reselection.odm import OdmPolicy
    from synque_select.reselection.registry import get_policy, policy_ids, register_policy
    from synque_select.reselection.surrogate import SurrogatePolicy

__all__ = [
    "AgreementPolicy",
    "AioliPolicy",
    "ModelEvaluation",
    "OdmPolicy",
    "Proposal",
    "ReselectionContext",
    "ReselectionPolicy",
    "StaticPolicy",
    "SurrogatePolicy",
    "get_policy",
    "policy_ids",
    "register_policy",
]

__getattr__ = lazy_names(
    __name__,
    {
        "AgreementPolicy": "agreement",
        "AioliPolicy": "aioli",
        "ModelEvaluation": "context",
        "OdmPolicy": "odm",
        "Proposal": "base",
        "ReselectionContext": "context",
        "ReselectionPolicy": "base",
        "StaticPolicy": "base",
        "SurrogatePolicy": "surrogate",
        "get_policy": "registry",
        "policy_ids": "registry",
        "register_policy": "registry",
    },
)
