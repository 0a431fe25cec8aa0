"""PySyncObj as it is loaded: without its encryption, which would load a cryptography library into every node for frames
that it never sends."""

from __future__ import annotations

import sys
from types import ModuleType

_encryptor = ModuleType("pysyncobj.encryptor")
_encryptor.HAS_CRYPTO, _encryptor.getEncryptor = False, None  # type: ignore[attr-defined]
sys.modules.setdefault(_encryptor.__name__, _encryptor)

from pysyncobj import syncobj  # noqa: E402
from pysyncobj.config import SyncObjConf  # noqa: E402
from pysyncobj.journal import Journal  # noqa: E402
from pysyncobj.node import Node  # noqa: E402
from pysyncobj.syncobj import SyncObj  # noqa: E402
from pysyncobj.transport import Transport  # noqa: E402

__all__ = ["Journal", "Node", "SyncObj", "SyncObjConf", "Transport", "syncobj"]
