"""The C extension: stable ABI of Python 3.11, no flags that tie it to one processor, and optional where no compiler
is."""

import sysconfig

from setuptools import Extension, setup

SOURCES = [
    "cext/module.c",
    "cext/sync_module.c",
    "cext/cpu.c",
    "cext/crc.c",
    "cext/gf256.c",
    "cext/head.c",
    "cext/probe.c",
    "cext/sync.c",
]
FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))

setup(
    ext_modules=[
        Extension(
            "edgestore.kernels._native",
            SOURCES,
            depends=["cext/kernels.h", "cext/module.h"],
            define_macros=[] if FREE_THREADED else [("Py_LIMITED_API", "0x030B0000")],
            extra_compile_args=["-std=c11", "-O3", "-Wall", "-Wextra"],
            py_limited_api=not FREE_THREADED,
            optional=True,
        )
    ],
    options={} if FREE_THREADED else {"bdist_wheel": {"py_limited_api": "cp311"}},
)
