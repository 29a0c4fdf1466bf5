"""Makes the frozen copy of version 1 anew from today's SDK. Only until version 1 is released (README.md); never after."""

import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COPY = Path(__file__).parent / "v1"
# What a plugin with an aggregator and a compressor is built from: headers, the schema that it links, the package's CMake.
FILES = {
    "include/hansa": [f"sdk/include/hansa/{name}" for name in (
        "aggregator.hpp", "build_note.h", "component.hpp", "compressor.hpp", "plugin.h", "plugin.hpp", "schema.hpp", "types.hpp", "value.hpp")],
    "schema": ["sdk/schema/schema.cpp", "sdk/schema/value.cpp"],
    "cmake": ["sdk/cmake/HansaAddPlugin.cmake", "sdk/cmake/build_note.cpp.in", "sdk/cmake/plugin.map", "cmake/HansaLibTorch.cmake"],
}

for folder, sources in FILES.items():
    shutil.rmtree(COPY / folder, ignore_errors=True)
    (COPY / folder).mkdir(parents=True)
    for source in sources:
        shutil.copy(ROOT / source, COPY / folder)
