"""For tests of your own code: what every proxy, encoder, engine, file reader and policy must do.

Needs pytest. Subclass a suite in your tests and write the fixture that returns what it tests:

    class TestMyProxy(ProxyConformance):
        @pytest.fixture
        def proxy(self):
            return MyProxy()
"""

import pytest

# before the import, so that a failed assertion of a suite shows the compared values
pytest.register_assert_rewrite(
    "synque_select.testing.encoders",
    "synque_select.testing.engines",
    "synque_select.testing.policies",
    "synque_select.testing.proxies",
    "synque_select.testing.readers",
)

from synque_select.llm.scripted import ScriptedLLM  # noqa: E402
from synque_select.testing.encoders import EncoderConformance  # noqa: E402
from synque_select.testing.engines import (  # noqa: E402
    ITEMS,
    PREFIX,
    SUFFIXES,
    LLMConformance,
    choice_table,
)
from synque_select.testing.policies import PolicyConformance, SimulatedTraining  # noqa: E402
from synque_select.testing.process import unchanged_process  # noqa: E402
from synque_select.testing.proxies import ProxyConformance, proxy_input  # noqa: E402
from synque_select.testing.readers import ReaderConformance  # noqa: E402

__all__ = [
    "ITEMS",
    "PREFIX",
    "SUFFIXES",
    "EncoderConformance",
    "LLMConformance",
    "PolicyConformance",
    "ProxyConformance",
    "ReaderConformance",
    "ScriptedLLM",
    "SimulatedTraining",
    "choice_table",
    "proxy_input",
    "unchanged_process",
]
