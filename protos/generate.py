"""Generate the stubs of protos/waybill/v1 beside the .proto files, or check that they are current.

    python protos/generate.py           # writes *_pb2.py, *_pb2_grpc.py and their types, *.pyi
    python protos/generate.py --check   # exit code 1 where a stub differs from what its .proto gives

The stubs import each other as `waybill.v1`, which is what the distribution installs protos/waybill as.
"""

from __future__ import annotations

import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent
STUBS = ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py", "*_pb2_grpc.pyi")


def well_known() -> list[str]:
    """Folders that hold google/protobuf/*.proto and google/rpc/*.proto."""
    import google.rpc.status_pb2 as status

    return [str(files("grpc_tools") / "_proto"), str(Path(status.__file__).parents[2])]


def generate(into: Path) -> None:
    """Write the stubs of every .proto under protos/waybill into the folder `into`."""
    sources = sorted(str(path) for path in ROOT.glob("waybill/**/*.proto"))
    if not sources:
        raise SystemExit("protos/generate.py: no .proto files under protos/waybill")
    # mypy-protobuf's plugins lie beside the interpreter, which need not be on PATH.
    plugins = [f"--plugin={name}={Path(sys.executable).parent / name}" for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")]
    includes = [f"-I{folder}" for folder in (ROOT, *well_known())]
    outputs = [f"--python_out={into}", f"--grpc_python_out={into}", f"--mypy_out=quiet:{into}", f"--mypy_grpc_out=quiet:{into}"]
    if protoc.main(["protoc", *includes, *plugins, *outputs, *sources]):
        raise SystemExit("protos/generate.py: protoc refused the .proto files")


def stubs(folder: Path) -> dict[str, bytes]:
    """Content of each stub by its path relative to `folder`."""
    return {str(path.relative_to(folder)): path.read_bytes() for pattern in STUBS for path in folder.glob(f"waybill/**/{pattern}")}


def main() -> int:
    """Write the stubs; with --check, compare instead and name what differs."""
    if "--check" not in sys.argv[1:]:
        generate(ROOT)
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch))
        wanted, present = stubs(Path(scratch)), stubs(ROOT)
    stale = sorted(name for name in wanted.keys() | present.keys() if wanted.get(name) != present.get(name))
    for name in stale:
        print(f"protos/{name} does not match its .proto: run `make proto`")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
