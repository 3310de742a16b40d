"""Fetches one storage block with Prefect's own code, as a flow run of Prefect 2 does; the import is timed apart.

    python prefect-fetch.py '{"slug": ..., "data": ..., "to": ...}'    prints {"importMs": ..., "ms": ..., "processorMs": ...}
"""

import asyncio
import json
import os
import sys
import time

order = json.loads(sys.argv[1])
started = time.perf_counter()


def find_class(slug):
    from prefect import filesystems

    if slug == "s3-bucket":
        from prefect_aws import S3Bucket

        return S3Bucket
    if slug == "gcs-bucket":
        from prefect_gcp import GcsBucket

        return GcsBucket
    if slug == "azure-blob-storage-container":
        from prefect_azure import AzureBlobStorageContainer

        return AzureBlobStorageContainer
    names = {
        "azure": "Azure",
        "gcs": "GCS",
        "github": "GitHub",
        "local-file-system": "LocalFileSystem",
        "remote-file-system": "RemoteFileSystem",
        "s3": "S3",
        "smb": "SMB",
    }
    return getattr(filesystems, names[slug])


def build_credentials(slug, data):
    """Blocks inside of blocks are given as their fields; the union of types would take the first that fits."""
    if slug == "s3-bucket":
        from prefect_aws import AwsCredentials, MinIOCredentials

        fields = data["credentials"]
        kind = MinIOCredentials if "minio_root_user" in fields else AwsCredentials
        return {**data, "credentials": kind(**fields)}
    return data


block_class = find_class(order["slug"])
block = block_class(**build_credentials(order["slug"], order["data"]))
if hasattr(block, "filesystem") and order["slug"] != "local-file-system":
    block.filesystem  # imports and opens fsspec's class
imported = time.perf_counter()
processor = time.process_time()


async def fetch():
    # What comes back for a synchronous caller is a value, for an asynchronous one something to wait for.
    answer = block.get_directory(from_path=order.get("from"), local_path=order["to"])
    if asyncio.iscoroutine(answer):
        await answer


os.makedirs(order["to"], exist_ok=True)
asyncio.run(fetch())
ended = time.perf_counter()
print(
    json.dumps(
        {
            "importMs": (imported - started) * 1000,
            "ms": (ended - imported) * 1000,
            "processorMs": (time.process_time() - processor) * 1000,
        }
    )
)
