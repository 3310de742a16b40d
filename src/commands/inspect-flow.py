"""Imports a flow as Prefect does and says what a deployment needs to know of it: name, version, description, parameters,
and the image that has the same versions.

The answer is one line of JSON on the file descriptor that the first argument names, for a flow's module may print what it
likes. Works with Prefect 2.20 and 3.x.
"""

import json
import os
import sys


def main():
    answer = os.fdopen(int(sys.argv[1]), "w")
    entrypoint = sys.argv[2]
    # `python FILE` puts the file's folder first, `python -m` would put the current directory there.
    if not getattr(sys.flags, "safe_path", False):
        sys.path[0] = os.getcwd()
    from prefect.flows import load_flow_from_entrypoint
    from prefect.utilities.callables import parameter_schema
    from prefect.utilities.dockerutils import get_prefect_image_name

    flow = load_flow_from_entrypoint(entrypoint)
    schema = parameter_schema(flow)
    # What each Prefect itself sends to the server.
    to_object = getattr(schema, "model_dump_for_openapi", None) or schema.dict
    facts = {
        "name": flow.name,
        "version": flow.version,
        "description": flow.description,
        "schema": to_object(),
        "image": get_prefect_image_name(),
    }
    answer.write(json.dumps(facts))
    answer.close()


if __name__ == "__main__":
    main()
