"""LiteLLM's proxy: one worker, one master key. It speaks chat completions only."""

import json
from pathlib import Path

from bench.candidates.kinds import API_KEY, Endpoints, plain_environment
from bench.installing import environment, pinned_version
from bench.processes import Child

KEEP_ALIVE_S = 300


class LiteLLM:
    """A model for each endpoint, under the endpoint's name. Nothing is logged for a request."""

    name = "litellm"

    def prepare(self) -> str:
        environment(self.name)
        return pinned_version(self.name)

    def start(self, endpoints: Endpoints, *, port: int, core: int, folder: Path) -> Child:
        models = [
            {
                "model_name": name,
                "litellm_params": {
                    "model": f"openai/{name}",
                    "api_base": f"http://{one.addresses[0]}/v1",
                    "api_key": "unused",
                },
            }
            for name, one in endpoints.items()
        ]
        config = {
            "model_list": models,
            "general_settings": {"master_key": API_KEY},
            "litellm_settings": {"telemetry": False, "request_timeout": 900, "num_retries": 0},
        }
        # JSON is YAML.
        (folder / "litellm.yaml").write_text(json.dumps(config))
        (folder / "logging.json").write_text(json.dumps({"version": 1, "disable_existing_loggers": True}))
        options = ["--config", str(folder / "litellm.yaml"), "--log_config", str(folder / "logging.json")]
        address = ["--host", "127.0.0.1", "--port", str(port), "--keepalive_timeout", str(KEEP_ALIVE_S)]
        return Child(
            [str(environment(self.name) / "litellm"), *options, *address],
            core=core,
            log=folder / "litellm.log",
            env={**plain_environment(), "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"},
            cwd=folder,
        )
