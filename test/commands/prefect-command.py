"""Prefect's own command, many times in one process, for each start of it takes seconds of a processor.

In: lines of JSON on standard input, each a list of arguments. Out: a line of JSON for each, `{"code": 0, "said": "..."}`.
"""

import contextlib
import io
import json
import sys

from prefect.cli.root import app
from prefect.cli import deployment  # noqa: F401


def run(arguments):
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            # It returns the code of an error that it has told of.
            code = app(arguments, standalone_mode=False) or 0
        except SystemExit as ended:
            code = ended.code or 0
        except BaseException as error:
            code = 1
            said.write(repr(error))
    return {"code": code, "said": said.getvalue()}


for line in sys.stdin:
    print(json.dumps(run(json.loads(line))), flush=True)
