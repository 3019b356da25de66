"""HLSL through Slang's front end: `hlsl_slang.py FOLDER-OF-SLANGPY`.

It reads lines of JSON from stdin, each with `id`, `entry` and `path`, and writes one for each: `id` and `error`, which is empty if
Slang takes the text.
"""

import ctypes
import glob
import json
import re
import sys


def slang(folder: str) -> ctypes.CDLL:
    """Slang's library, with the types of the functions that are called."""
    library = ctypes.CDLL(glob.glob(f"{folder}/slangpy/libslang-compiler.so.0*")[0])
    pointer, text = ctypes.c_void_p, ctypes.c_char_p
    for name, result, arguments in [
        ("spCreateSession", pointer, [text]),
        ("spCreateCompileRequest", pointer, [pointer]),
        ("spProcessCommandLineArguments", ctypes.c_int, [pointer, ctypes.POINTER(text), ctypes.c_int]),
        ("spCompile", ctypes.c_int, [pointer]),
        ("spGetDiagnosticOutput", text, [pointer]),
        ("spDestroyCompileRequest", None, [pointer]),
    ]:
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def refusal(library: ctypes.CDLL, session: int, path: str, entry: str) -> str:
    """Slang's first error; empty if it has none."""
    request = library.spCreateCompileRequest(session)
    words = f"-lang hlsl -profile cs_6_2 -stage compute -entry {entry} -target spirv -skip-codegen".split()
    arguments = (ctypes.c_char_p * (len(words) + 1))(*(word.encode() for word in [*words, path]))
    refused = library.spProcessCommandLineArguments(request, arguments, len(arguments)) < 0
    refused = refused or library.spCompile(request) < 0
    output = (library.spGetDiagnosticOutput(request) or b"").decode(errors="replace")
    library.spDestroyCompileRequest(request)
    if not refused:
        return ""
    error = re.search(r"error[^\n]*", output)
    return error[0] if error else output.strip() or "refused without a word"


def main() -> None:
    library = slang(sys.argv[1])
    session = library.spCreateSession(None)
    for line in sys.stdin:
        job = json.loads(line)
        error = refusal(library, session, job["path"], job["entry"])
        print(json.dumps({"id": job["id"], "error": error}), flush=True)


main()
