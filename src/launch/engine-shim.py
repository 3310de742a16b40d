"""Runs Prefect's engine on flow code that Rigel has fetched already.

Does what `python -m prefect.engine` does, with one difference: the code is loaded from RIGEL_WORKSPACE instead of being
downloaded once more. Works with Prefect 2.20 and 3.x; where it does not know its way, the engine fetches by itself.
Standard library only, and nothing that the engine does not import anyway. Comes with the run, so it says what it is.
"""

import json
import os
import runpy
import sys
import types
import warnings

# EX_CONFIG of sysexits.h; the engine itself ends with 0, 1 or a signal. The agent reads it and the line below.
NO_PREFECT = 78


def main():
    # `python FILE` puts the file's folder first, `python -m` would not; it holds nothing to import.
    if not getattr(sys.flags, "safe_path", False):
        del sys.path[0]
    import_prefect()
    silence_own_warnings()
    workspace = os.environ.get("RIGEL_WORKSPACE")
    # With PREFECT__FLOW_ENTRYPOINT the engine loads that file and asks no storage.
    if not workspace or os.environ.get("PREFECT__FLOW_ENTRYPOINT") or not wrap_loading(workspace):
        sys.path.insert(0, os.getcwd())
    runpy.run_module("prefect.engine", run_name="__main__", alter_sys=True)


def import_prefect():
    """Ends the process with NO_PREFECT and one line when this Python has no Prefect."""
    try:
        import prefect
    except ModuleNotFoundError as error:
        if error.name != "prefect":
            raise
        prefect = None
    # A mere folder called "prefect" on the path can be imported too, and has no file.
    if getattr(prefect, "__file__", None) is None:
        version = ".".join(str(part) for part in sys.version_info[:3])
        print("rigel: no Prefect in %s (%s)" % (sys.executable, version), file=sys.stderr, flush=True)
        sys.exit(NO_PREFECT)


def silence_own_warnings():
    """Two that are about this file's way to the engine, not about the flow; all others stay."""
    warnings.filterwarnings("ignore", message="'prefect.engine' found in sys.modules", category=RuntimeWarning)
    deprecated = r"prefect\.deployments\.deployments\.load_flow_from_flow_run has been deprecated"
    warnings.filterwarnings("ignore", message=deprecated)


def wrap_loading(workspace):
    """Puts our loading in the place of Prefect's, everywhere it is known by name. False: not the Prefect we know."""
    import inspect

    original = find_loading()
    try:
        from prefect.client.orchestration import PrefectClient

        known = {"flow_run", "ignore_storage"} <= set(inspect.signature(original).parameters)
        known = known and callable(PrefectClient.read_deployment)
    except (AttributeError, ImportError, TypeError, ValueError):
        known = False
    if not known:
        import prefect

        version = getattr(prefect, "__version__", "of unknown version")
        text = "rigel: Prefect %s loads flows in an unknown way, so its engine fetches the code again" % version
        print(text, file=sys.stderr, flush=True)
        return False

    async def load_from_workspace(flow_run, *args, **kwargs):
        # Not earlier: a file of the flow's author called like a module of the engine must not be imported by it.
        for folder in (workspace, os.getcwd()):
            if folder not in sys.path:
                sys.path.insert(0, folder)
        pulled = read_pulled_steps()
        # Prefect 3 takes it for the steps that are left as well.
        kwargs["ignore_storage"] = pulled is None
        if pulled is not None:
            # Where the steps before these were done.
            os.chdir(workspace)
        with changed_deployment(PrefectClient, workspace, pulled):
            return await original(flow_run, *args, **kwargs)

    for name, module in list(sys.modules.items()):
        if name.split(".")[0] == "prefect" and vars(module).get("load_flow_from_flow_run") is original:
            module.load_flow_from_flow_run = load_from_workspace
    return True


def find_loading():
    """The engine's function that fetches and imports a flow: in prefect.flows since 3.0, in prefect.deployments before."""
    from importlib import import_module

    for name in ("prefect.flows", "prefect.deployments.deployments"):
        try:
            found = vars(import_module(name)).get("load_flow_from_flow_run")
        except ImportError:
            continue
        if found is not None:
            return found
    return None


def read_pulled_steps():
    """What the agent has done of the pull steps; None when it has done all of them, or there are none."""
    text = os.environ.pop("RIGEL_PULLED_STEPS", None)
    return None if not text else json.loads(text)


def replace_pulled_steps(steps, pulled):
    """Steps that give the outputs of those that the agent has done, then the steps that are left."""
    module = types.ModuleType("rigel_pulled")
    module.done = lambda **output: output
    sys.modules[module.__name__] = module
    return [{"rigel_pulled.done": output} for output in pulled["outputs"]] + list(steps or [])[pulled["taken"] :]


class changed_deployment:
    """While it is open, the first deployment that the client reads has only the pull steps that the agent has left (2.20
    runs them even when told to ignore the storage). When there are none, its entrypoint lies in the workspace also when
    that is not the current directory."""

    def __init__(self, client_class, workspace, pulled):
        self.client_class = client_class
        self.workspace = workspace
        self.pulled = pulled

    def __enter__(self):
        original = self.original = self.client_class.read_deployment

        async def read_deployment(client, *args, **kwargs):
            self.__exit__()
            deployment = await original(client, *args, **kwargs)
            if self.pulled is not None:
                deployment.pull_steps = replace_pulled_steps(deployment.pull_steps, self.pulled)
                return deployment
            deployment.pull_steps = []
            deployment.entrypoint = self.find_entrypoint(deployment.entrypoint)
            return deployment

        self.client_class.read_deployment = read_deployment

    def __exit__(self, *_):
        self.client_class.read_deployment = self.original

    def find_entrypoint(self, entrypoint):
        if not entrypoint or ".py:" not in entrypoint:
            return entrypoint
        # The same directory: left as it is, so that names in logs and tracebacks are as under Prefect.
        if os.path.realpath(self.workspace) == os.path.realpath(os.getcwd()):
            return entrypoint
        return os.path.join(self.workspace, entrypoint.replace("\\", "/"))


if __name__ == "__main__":
    main()
