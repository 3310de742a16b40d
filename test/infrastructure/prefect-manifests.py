"""Builds Job manifests with Prefect's own block: reads cases as JSON on stdin, writes what it builds on stdout."""

import json
import sys
import warnings

warnings.simplefilter("ignore")

from prefect.infrastructure.kubernetes import KubernetesJob  # noqa: E402

answers = []
for case in json.load(sys.stdin):
    try:
        block = KubernetesJob(**case["block"])
        prepared = block.copy(update=case["run"])
        # The agent's own settings are the business of another room.
        prepared.__class__._base_environment = classmethod(lambda cls: {})
        answers.append({"manifest": prepared.build_job()})
    except Exception as error:
        answers.append({"error": str(error)})
json.dump(answers, sys.stdout)
