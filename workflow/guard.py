"""Nothing leaves the machine: what libraries send of their own accord is switched off before they load.

A user's environment may switch tracing or telemetry on for other programs; here it is switched off all the same, as a
prompt quotes the record of a patient. One wish of the environment stands: HF_HUB_OFFLINE=0 permits the download of a
model that `hf:ORG/NAME` names; it sends nothing but the name. Where prompts go, the configuration alone decides
(`allowed_hosts`).
"""

from __future__ import annotations

import os
import sys

OFF = {
    "LANGSMITH_TRACING": "false",
    "LANGSMITH_TRACING_V2": "false",
    "LANGCHAIN_TRACING": "false",
    "LANGCHAIN_TRACING_V2": "false",
    "LANGSMITH_OTEL_ENABLED": "false",
    "OTEL_SDK_DISABLED": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DISABLE_TELEMETRY": "1",  # an older name of the same
    "DO_NOT_TRACK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "WANDB_MODE": "disabled",
}


def quiet_libraries() -> None:
    """Switches off tracing, telemetry and hub calls of libraries; a user's own HF_HUB_OFFLINE=0 stands."""
    os.environ.update(OFF)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TRANSFORMERS_OFFLINE", os.environ["HF_HUB_OFFLINE"])
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    traces = sys.modules.get("langsmith.utils")
    if traces is not None:  # in a program that loaded it before us, it may remember what the environment said then
        traces.get_env_var.cache_clear()
