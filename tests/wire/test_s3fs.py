"""s3fs (fsspec) against a live node."""

from __future__ import annotations

from tests.faults.process import ACCESS_KEY, SECRET_KEY, NodeProcess
from tests.wire.environments import environment, run

PROGRAM = """
import os, sys
import s3fs

endpoint, key, secret, bucket = sys.argv[1:]
files = s3fs.S3FileSystem(key=key, secret=secret, endpoint_url=endpoint, client_kwargs={"region_name": "us-east-1"})
body = os.urandom(12_000_000)
with files.open(f"{bucket}/folder/large.bin", "wb", block_size=5 << 20) as file:
    file.write(body)
with files.open(f"{bucket}/folder/small.txt", "w") as file:
    file.write("line one\\nline two\\n")
assert files.cat(f"{bucket}/folder/large.bin") == body
assert files.cat_file(f"{bucket}/folder/large.bin", start=5_000_000, end=5_000_100) == body[5_000_000:5_000_100]
with files.open(f"{bucket}/folder/large.bin", "rb") as file:
    file.seek(-77, 2)
    assert file.read() == body[-77:]
assert files.ls(f"{bucket}/folder") == [f"{bucket}/folder/large.bin", f"{bucket}/folder/small.txt"]
assert files.info(f"{bucket}/folder/small.txt")["size"] == 18
files.copy(f"{bucket}/folder/small.txt", f"{bucket}/copy.txt")
files.mv(f"{bucket}/copy.txt", f"{bucket}/moved.txt")
assert files.cat(f"{bucket}/moved.txt") == b"line one\\nline two\\n"
assert not files.exists(f"{bucket}/copy.txt")
assert sorted(files.find(bucket)) == [f"{bucket}/folder/large.bin", f"{bucket}/folder/small.txt", f"{bucket}/moved.txt"]
files.rm(bucket, recursive=True)
assert not files.exists(bucket)
print("ok")
"""


def test_files_are_written_read_and_removed(node: NodeProcess, bucket: str) -> None:
    python = environment("s3fs") / "python"
    answer = run([python, "-W", "ignore", "-c", PROGRAM, node.endpoint, ACCESS_KEY, SECRET_KEY, bucket])
    assert answer.strip() == b"ok"
