"""The core of a node on one data folder: every room from the disk up to the object service, wired once.

Used by the embedded store as it is, by `edgestore.node` with listeners on top, and by the simulator on a simulated
disk. What only a node of several needs is loaded when a node is one.
"""

from typing import TYPE_CHECKING

from edgestore.core.membership import SITE_FILE, read_site
from edgestore.core.opening import INDEX_FOLDER, Core, OpenStore, root_keys_of_environment
from edgestore.later import later

if TYPE_CHECKING:
    from edgestore.core.joining import Joining, MeshOptions, check_addresses, join_site, open_in_site
    from edgestore.core.recovery import plan_recovery, recover_site
else:
    __getattr__ = later(
        __name__,
        {
            "joining": ("Joining", "MeshOptions", "check_addresses", "join_site", "open_in_site"),
            "recovery": ("plan_recovery", "recover_site"),
        },
    )

__all__ = [
    "INDEX_FOLDER",
    "SITE_FILE",
    "Core",
    "Joining",
    "MeshOptions",
    "OpenStore",
    "check_addresses",
    "join_site",
    "open_in_site",
    "plan_recovery",
    "read_site",
    "recover_site",
    "root_keys_of_environment",
]
