"""Fetches storage blocks with Prefect's own code, as a flow run of Prefect 2 does.

In: lines of JSON on standard input, each an order: `slug` and `data` of a block, `to` and perhaps `from`, `environment` and
`timeoutSeconds`. Out: a line of JSON for each, `{"ms": ..., "processorMs": ...}` or `{"error": ...}`.

Each order is carried out by a fork of this process, which has imported everything and has opened nothing: it is as good as
new, and what it takes is the fetch alone.
"""

import asyncio
import json
import os
import signal
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import fsspec
from prefect import filesystems


def import_class(slug, data):
    if slug == "s3-bucket":
        from prefect_aws import S3Bucket

        return S3Bucket
    if slug == "gcs-bucket":
        from prefect_gcp import GcsBucket

        return GcsBucket
    if slug == "azure-blob-storage-container":
        from prefect_azure import AzureBlobStorageContainer

        return AzureBlobStorageContainer
    # And what of fsspec they open, which they import only then.
    blocks = {
        "azure": ("Azure", "az"),
        "gcs": ("GCS", "gcs"),
        "github": ("GitHub", "file"),
        "local-file-system": ("LocalFileSystem", "file"),
        "remote-file-system": ("RemoteFileSystem", data.get("basepath", "").split("://")[0]),
        "s3": ("S3", "s3"),
        "smb": ("SMB", "smb"),
    }
    name, protocol = blocks[slug]
    fsspec.get_filesystem_class(protocol)
    return getattr(filesystems, name)


def build_credentials(slug, data):
    """Blocks inside of blocks are given as their fields; the union of types would take the first that fits."""
    if slug == "s3-bucket":
        from prefect_aws import AwsCredentials, MinIOCredentials

        fields = data["credentials"]
        kind = MinIOCredentials if "minio_root_user" in fields else AwsCredentials
        return {**data, "credentials": kind(**fields)}
    return data


def fetch(block_class, order):
    signal.alarm(order.get("timeoutSeconds", 120))
    os.environ.update(order.get("environment", {}))
    block = block_class(**build_credentials(order["slug"], order["data"]))
    if hasattr(block, "filesystem") and order["slug"] != "local-file-system":
        block.filesystem  # opens fsspec's class
    started, processor = time.perf_counter(), time.process_time()
    os.makedirs(order["to"], exist_ok=True)
    asyncio.run(get_directory(block, order))
    return {
        "ms": (time.perf_counter() - started) * 1000,
        "processorMs": (time.process_time() - processor) * 1000,
    }


async def get_directory(block, order):
    # What comes back for a synchronous caller is a value, for an asynchronous one something to wait for.
    answer = block.get_directory(from_path=order.get("from"), local_path=order["to"])
    if asyncio.iscoroutine(answer):
        await answer


def carry_out(order):
    try:
        block_class = import_class(order["slug"], order["data"])
        with ProcessPoolExecutor(1, get_context("fork")) as fork:
            return fork.submit(fetch, block_class, order).result()
    except Exception as error:
        return {"error": repr(error)}


for line in sys.stdin:
    print(json.dumps(carry_out(json.loads(line))), flush=True)
